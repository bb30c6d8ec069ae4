import { stopAll } from "./run.ts";

/** A mistake in the arguments of a command: one sentence. */
export class Usage extends Error {}

/**
 * Runs what stands behind `npm run <name>`. A mistake in its arguments is told in a sentence, with exit code 2; a signal ends the processes that were
 * started by `runNode`, and then this one.
 */
export async function runCommand(name: string, main: () => Promise<void>): Promise<void> {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      stopAll();
      process.kill(process.pid, signal);
    });
  }
  try {
    await main();
  } catch (error) {
    const isUsage =
      error instanceof Usage || (error instanceof TypeError && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS"));
    if (!isUsage) throw error;
    console.error(`${error.message}\n${name} -- --help lists the options`);
    process.exitCode = 2;
  }
}
