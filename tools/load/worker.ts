// One process of a load, started by workers.ts, which speaks to it over the channel between them.

import { ConnectError } from "@connectrpc/connect";
import { reasonOf } from "#runtime/errors.ts";
import type { LoadPlan } from "./plan.ts";
import { prepareLoad } from "./run.ts";
import type { FromWorker, ToWorker } from "./workers.ts";

const PROGRESS_MS = 500;

const tell = (message: FromWorker) => new Promise<void>((resolve) => process.send?.(message, () => resolve()));
const stopping = new AbortController();
const { promise: begun, resolve: begin } = Promise.withResolvers<void>();

async function work(plan: LoadPlan): Promise<void> {
  const load = await prepareLoad(plan);
  const timer = setInterval(() => {
    void tell({ kind: "progress", flows: load.figures().flows, inFlight: load.inFlight });
  }, PROGRESS_MS);
  try {
    await tell({ kind: "ready" });
    await begun;
    await tell({ kind: "figures", figures: await load.run(stopping.signal) });
  } finally {
    clearInterval(timer);
    load.close();
  }
}

// From a terminal the signal comes to all processes; the first one says what is to be done.
process.on("SIGINT", () => {});
process.on("disconnect", () => process.exit(1));
process.on("message", (message: ToWorker) => {
  if (message.kind === "go") begin();
  else if (message.kind === "stop") stopping.abort();
  else {
    work(message.plan)
      .catch((error: unknown) => {
        const message = error instanceof ConnectError ? error.rawMessage : String((error as Error).stack ?? error);
        return tell({ kind: "failed", reason: reasonOf(error), message });
      })
      .finally(() => process.exit());
  }
});
