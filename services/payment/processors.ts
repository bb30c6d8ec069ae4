import type { Clock } from "#runtime/clock.ts";
import type { Log } from "#runtime/log.ts";
import type { Door } from "#runtime/service.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import type { PaymentDatabase } from "./entities.ts";
import { OtherProcessor, openHttpProcessor } from "./http-processor.ts";
import type { Processor } from "./processor.ts";
import { keepProcessor } from "./processor-identity.ts";
import { openSimulator } from "./simulator.ts";
import { passedOnDoors, simulatorDoors } from "./simulator-doors.ts";

/** How long a start waits for a processor outside, in ms. */
const START_TIMEOUT_MS = 3_000;

/** A processor outside, by the contract of docs/processor.md. */
export interface NamedProcessor {
  readonly url: string;
  /** What it knows us by; undefined sends none. */
  readonly token: string | undefined;
  /** Whether a simulated one is taken. */
  readonly simulated: boolean;
}

/** What payment's processor is opened with. */
export interface ProcessorOptions {
  readonly database: PaymentDatabase;
  /** The one outside; a simulator in this process unless given. */
  readonly named: NamedProcessor | undefined;
  /** That one's books. */
  readonly simulatorFile: string;
  readonly clock: Clock;
  readonly baseUrl: () => string;
  readonly log: Log;
  readonly observer?: Observer | undefined;
}

/** A processor, and the pages that buyers are sent to where it is simulated. */
export interface OpenProcessor {
  readonly processor: Processor;
  readonly doors: readonly Door[];
  close(): void;
}

/**
 * Opens the processor that payments are with, and makes sure that it is the one they began with. One outside that is away does not stop the start: it is looked at
 * before the first call, and until then payments fail as with a processor out of reach.
 *
 * @throws Error a sentence, when payments are with another one, or with a simulated one where none is taken.
 */
export async function openProcessor({ named, ...options }: ProcessorOptions): Promise<OpenProcessor> {
  return named === undefined ? simulated(options) : outside(named, options);
}

async function simulated({
  database,
  simulatorFile: file,
  clock,
  baseUrl,
}: Omit<ProcessorOptions, "named">): Promise<OpenProcessor> {
  const simulator = openSimulator({ file, clock, baseUrl });
  try {
    await keepProcessor(database, simulator.id, { file });
  } catch (error) {
    simulator.close();
    throw error;
  }
  return { processor: simulator, doors: simulatorDoors(simulator), close: () => simulator.close() };
}

async function outside(
  named: NamedProcessor,
  { database, log, observer }: Omit<ProcessorOptions, "named">,
): Promise<OpenProcessor> {
  const { url, token } = named;
  const processor = openHttpProcessor({
    url,
    token,
    observer,
    async admit({ processorId, simulated }) {
      if (simulated && !named.simulated) {
        throw new OtherProcessor(
          `The processor at ${url} says that it is simulated, and SOUK_ENV is production. Name a real one in SOUK_PROCESSOR.`,
        );
      }
      await keepProcessor(database, processorId, { url }).catch((error: Error) => {
        throw new OtherProcessor(error.message);
      });
    },
  });
  try {
    await processor.ready(AbortSignal.timeout(START_TIMEOUT_MS));
  } catch (error) {
    if (error instanceof OtherProcessor) {
      processor.close();
      throw error;
    }
    log.warn({ err: error }, "the payment processor is out of reach; payments wait for it");
  }
  return { processor, doors: named.simulated ? passedOnDoors(new URL(url).origin) : [], close: () => processor.close() };
}
