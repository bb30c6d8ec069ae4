// The reading thread, except that it dies when somebody searches for "die".
import { parentPort } from "node:worker_threads";

parentPort?.on("message", ({ method, args }: { method: string; args: [{ text?: string }] }) => {
  if (method === "search" && args[0].text === "die") {
    process.exit(1);
  }
});
await import("../../services/search/sqlite/reader.ts");
