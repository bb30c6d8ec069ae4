// The writing thread, except that it dies when a listing called "die" comes.
import { parentPort } from "node:worker_threads";

parentPort?.on("message", ({ method, args }: { method: string; args: [{ document?: { title: string } }[]] }) => {
  if (method === "apply" && args[0].some((change) => change.document?.title === "die")) {
    process.exit(1);
  }
});
await import("../../services/search/sqlite/writer.ts");
