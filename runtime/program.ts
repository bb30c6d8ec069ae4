import { ConfigError } from "#runtime/settings.ts";

/** A program that serves until it is told to end. */
export interface Serving<Settings, Running extends { stop(): Promise<void> }> {
  /** Reads the settings, or gives the help's text. Throws ConfigError. */
  read(): Settings | { readonly help: string };
  start(settings: Settings): Promise<Running>;
  /** Runs once it serves. */
  ready(running: Running, settings: Settings): Promise<void>;
}

/**
 * Reads the settings, runs, and ends on SIGINT or SIGTERM: the first drains, a second ends at once. What is wrong with the settings or in the
 * way of the start is told as a sentence, with exit code 2 or 1.
 */
export async function runProgram<Settings extends object, Running extends { stop(): Promise<void> }>(
  program: Serving<Settings, Running>,
): Promise<void> {
  let running: Running | undefined;
  try {
    const settings = program.read();
    if (isHelp(settings)) {
      process.stdout.write(settings.help);
      return;
    }
    const starting = program.start(settings);
    endOnSignal(() => starting.then((started) => started.stop()));
    running = await starting;
    await program.ready(running, settings);
  } catch (error) {
    await running?.stop();
    process.exitCode = error instanceof ConfigError ? 2 : 1;
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    if (!(error instanceof ConfigError)) process.exit();
  }
}

function isHelp(settings: object): settings is { readonly help: string } {
  return "help" in settings;
}

/**
 * How long after the first signal another one is its echo, in ms: who signals a process group reaches this process directly, and again through npm and the
 * process that started it, which pass signals on.
 */
const ECHO_MS = 500;

function endOnSignal(stop: () => Promise<void>): void {
  let endingTime: number | undefined;
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    process.on(signal, () => {
      if (endingTime !== undefined) {
        if (performance.now() - endingTime >= ECHO_MS) process.exit(code);
        return;
      }
      endingTime = performance.now();
      process.stderr.write("Ending: calls in flight may finish. A second signal ends at once.\n");
      stop().then(
        () => process.exit(0),
        () => process.exit(1),
      );
    });
  }
}
