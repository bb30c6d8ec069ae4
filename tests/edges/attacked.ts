import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { ServerLimits } from "#runtime/server.ts";
import { ROOT } from "../support/process.ts";
import { GET_LISTING } from "./load.ts";

/** What a process has used so far. */
export interface Use {
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
  readonly cpuMs: number;
  /** Calls whose handler has begun. */
  readonly begun: number;
  readonly uncaught: number;
  /** Calls that the server counts as under way. */
  readonly open: number;
}

/** The id of a listing whose title has so many KiB, and which takes so long to find, in ms. The rest makes it a valid one. */
export function listingId({ kib = 0, ms = 0 } = {}): string {
  return `${kib.toString(16).padStart(8, "0")}-0000-7000-8000-0000${ms.toString(16).padStart(8, "0")}`;
}

/** A request for such a listing, as JSON. */
export function requestFor(wanted: { kib?: number; ms?: number } = {}): Buffer {
  return Buffer.from(JSON.stringify({ listingId: listingId(wanted) }));
}

/** A server in a process of its own (`victim.ts`), and somebody who calls it while others attack it. */
export class Victim {
  readonly port: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, port: number) {
    this.#child = child;
    this.port = port;
  }

  static async start(limits: Partial<ServerLimits> = {}): Promise<Victim> {
    const program = fileURLToPath(new URL("victim.ts", import.meta.url));
    const child = fork(program, [JSON.stringify(limits)], {
      cwd: ROOT,
      execArgv: ["--expose-gc", "--disable-warning=ExperimentalWarning"],
    });
    const [{ port }] = (await once(child, "message")) as [{ port: number }];
    const victim = new Victim(child, port);
    // Compiled code and warm buffers are nobody's fault later.
    for (let calls = 0; calls < 200; calls++) await victim.call();
    return victim;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async use(): Promise<Use> {
    this.#child.send("use");
    const [use] = (await once(this.#child, "message")) as [Use];
    return use;
  }

  /** An honest call: it comes back when it is told to, as any client does; fails when it is not answered. */
  async call(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const response = await fetch(this.url + GET_LISTING, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: requestFor(),
        signal: AbortSignal.timeout(10_000),
      });
      const text = await response.text();
      if (response.status === 200) return;
      const seconds = Number(response.headers.get("retry-after"));
      if (response.status !== 429 || attempt === 10) throw new Error(`${response.status}: ${text}`);
      await sleep(seconds * 1000);
    }
  }

  /** Calls honestly while something goes on. Answers how many calls there were, each of which was answered. */
  async callDuring(work: () => Promise<unknown>): Promise<number> {
    let calls = 0;
    let over = false;
    const calling = (async () => {
      while (!over || calls === 0) {
        await this.call();
        calls++;
      }
    })();
    try {
      await Promise.race([work(), calling]);
    } finally {
      over = true;
      await calling;
    }
    return calls;
  }

  async stop(): Promise<void> {
    const exited = once(this.#child, "exit");
    this.#child.send("stop");
    await exited;
  }
}
