// A server in a process of its own, for tests that send it anything. Beside its port it answers its parent: what it has used so far.

import { createLog } from "#runtime/log.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { staged } from "../rpc/stage.ts";

/** Where the server is, and who may call it. */
export interface Begun {
  readonly port: number;
  readonly token: string;
}

/** What a process has used: its processor's time, and the memory that is left after a collection. */
export interface Usage {
  readonly cpuUs: number;
  readonly memoryBytes: number;
}

const keys = await temporaryKeys();
const server = await startServer({
  modules: staged().modules,
  host: "127.0.0.1",
  port: 0,
  verifiers: embeddedVerifiers(keys),
  log: createLog({ level: "error", format: "json" }),
  reflection: true,
  corsOrigins: ["localhost"],
});
process.on("message", (question: "cpu" | "memory") => {
  if (question === "memory") globalThis.gc?.();
  const { user, system } = process.cpuUsage();
  const { heapUsed, external } = process.memoryUsage();
  process.send?.({ cpuUs: user + system, memoryBytes: question === "memory" ? heapUsed + external : 0 } satisfies Usage);
});
process.on("disconnect", () => process.exit(0));
process.send?.({ port: server.port, token: await signAccountToken(keys, { accountId: "ada", operator: false }) } satisfies Begun);
