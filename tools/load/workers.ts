import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type LoadPlan, sharesOf } from "./plan.ts";
import { type Figures, type FlowFigures, sumOf } from "./recorder.ts";

/** What a worker is told. */
export type ToWorker = { readonly kind: "plan"; readonly plan: LoadPlan } | { readonly kind: "go" } | { readonly kind: "stop" };
/** What it tells. */
export type FromWorker =
  | { readonly kind: "ready" }
  | { readonly kind: "progress"; readonly flows: Figures["flows"]; readonly inFlight: number }
  | { readonly kind: "figures"; readonly figures: Figures }
  | { readonly kind: "failed"; readonly reason: string | undefined; readonly message: string };

/** How far a load is. */
export interface Progress extends FlowFigures {
  readonly inFlight: number;
}

/** How a load in several processes is watched and ended. */
export interface WorkersOptions {
  readonly workers: number;
  /** Ends the arrivals; the figures so far are given. */
  readonly signal: AbortSignal;
  /** Everybody is ready, and the load begins. */
  readonly onBegin?: () => void;
  readonly onProgress?: (progress: Progress) => void;
}

/** A worker could not go on. */
export class WorkerFailed extends Error {
  /** The reason of the marketplace's answer, if it was one. */
  readonly reason: string | undefined;
  constructor(message: string, reason?: string) {
    super(message);
    this.reason = reason;
  }
}

/** Runs a load shared by processes of their own, which begin together. Nothing of them is left when it ends. */
export async function runInWorkers(plan: LoadPlan, options: WorkersOptions): Promise<Figures> {
  const members = sharesOf(plan, options.workers).map((share) => new Member(share));
  const onStop = () => {
    for (const member of members) member.tell({ kind: "stop" });
  };
  options.signal.addEventListener("abort", onStop);
  const timer = setInterval(() => options.onProgress?.(progressOf(members)), 1000);
  try {
    await Promise.all(members.map((member) => member.ready));
    options.onBegin?.();
    for (const member of members) member.tell({ kind: "go" });
    return sumOf(await Promise.all(members.map((member) => member.figures)));
  } finally {
    clearInterval(timer);
    options.signal.removeEventListener("abort", onStop);
    for (const member of members) member.end();
  }
}

function progressOf(members: readonly Member[]): Progress {
  const sum = { arrived: 0, finished: 0, failed: 0, turnedAway: 0, inFlight: 0 };
  for (const { flows, inFlight } of members) {
    sum.inFlight += inFlight;
    for (const flow of Object.values(flows)) {
      for (const key of ["arrived", "finished", "failed", "turnedAway"] as const) sum[key] += flow[key];
    }
  }
  return sum;
}

class Member {
  readonly ready: Promise<void>;
  readonly figures: Promise<Figures>;
  flows: Figures["flows"] = {};
  inFlight = 0;
  readonly #child: ChildProcess;

  constructor(plan: LoadPlan) {
    const child = fork(fileURLToPath(new URL("./worker.ts", import.meta.url)), {
      execArgv: ["--disable-warning=ExperimentalWarning"],
    });
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    const figures = Promise.withResolvers<Figures>();
    this.ready = ready.promise;
    this.figures = figures.promise;
    // Whoever waits for one of the two hears of it.
    this.ready.catch(() => {});
    this.figures.catch(() => {});
    const fail = (error: Error) => {
      ready.reject(error);
      figures.reject(error);
    };
    child.on("message", (message: FromWorker) => {
      if (message.kind === "ready") ready.resolve();
      else if (message.kind === "figures") figures.resolve(message.figures);
      else if (message.kind === "failed") fail(new WorkerFailed(message.message, message.reason));
      else [this.flows, this.inFlight] = [message.flows, message.inFlight];
    });
    child.once("error", fail);
    child.once("exit", (code, signal) => fail(new WorkerFailed(`a process of the load ended by itself (${signal ?? code}).`)));
    this.tell({ kind: "plan", plan });
  }

  tell(message: ToWorker): void {
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}
