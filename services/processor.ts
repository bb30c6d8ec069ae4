// The simulated payment processor as a process of its own: `node services/processor.ts [settings]`.

import { systemClock } from "#runtime/clock.ts";
import { runProgram } from "#runtime/program.ts";
import { file, integer, optional, secretText } from "#runtime/setting-readers.ts";
import type { SettingSources } from "#runtime/settings.ts";
import { portSetting, readSideSettings, SIDE_SETTINGS, type SideRunning, startSide } from "#runtime/side-program.ts";
import { processorDoors } from "./payment/processor-doors.ts";
import { openSimulator } from "./payment/simulator.ts";
import { simulatorDoors } from "./payment/simulator-doors.ts";

const SETTINGS = {
  ...SIDE_SETTINGS,
  port: portSetting(8081),
  simulatorFile: {
    variable: "SOUK_SIMULATOR_FILE",
    shown: "FILE",
    initial: ".souk/processor.db",
    meaning: "its books",
    read: file,
  },
  processorToken: {
    variable: "SOUK_PROCESSOR_TOKEN",
    shown: "TEXT",
    initial: "",
    meaning: "what callers must send as a bearer token; anybody may call unless set",
    secret: true,
    read: optional(secretText),
  },
  latencyMs: {
    variable: "SOUK_SIMULATOR_LATENCY_MS",
    shown: "MS",
    initial: "0",
    meaning: "how long each call takes",
    read: integer(0, 60_000),
  },
} as const;

const USAGE = `usage: node services/processor.ts [settings]

Serves the simulated payment processor by the contract of docs/processor.md: name it to the marketplace in SOUK_PROCESSOR=http://127.0.0.1:8081/v1.
No real money moves, and production refuses it.`;

/** Starts the processor with these flags and variables; gives the help's text when it is asked for. */
export function readProcessorSettings(sources: SettingSources) {
  return readSideSettings(SETTINGS, USAGE, sources);
}

type ProcessorSettings = Exclude<ReturnType<typeof readProcessorSettings>, { readonly help: string }>;

/** Opens the books and listens. */
export function startProcessor(settings: ProcessorSettings): Promise<SideRunning> {
  const { simulatorFile, processorToken: token, latencyMs } = settings;
  return startSide(settings, "processor", (baseUrl) => {
    const processor = openSimulator({ file: simulatorFile, clock: systemClock, baseUrl, latencyMs });
    const identity = { processorId: processor.id, simulated: true };
    return {
      doors: [...processorDoors({ processor, identity, token }), ...simulatorDoors(processor)],
      close: () => processor.close(),
    };
  });
}

if (import.meta.main) {
  await runProgram({
    read: () => readProcessorSettings({ argv: process.argv.slice(2), env: process.env }),
    start: (settings) => startProcessor(settings as ProcessorSettings),
    ready: async ({ url, log }) => log.info({ url }, "ready"),
  });
}
