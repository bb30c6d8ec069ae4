import { type ManualClock, manualClock } from "#runtime/clock.ts";
import { type Server, startServer } from "#runtime/server.ts";
import { embeddedVerifiers, temporaryKeys } from "#runtime/tokens.ts";
import { PROCESSOR_PATH, processorDoors } from "../../services/payment/processor-doors.ts";
import { openSimulator, type Simulator } from "../../services/payment/simulator.ts";
import { quietLog } from "../support/database.ts";

/** The simulator behind the contract of HTTP, on a free port of this process. */
export interface ProcessorAtPort {
  readonly url: string;
  readonly clock: ManualClock;
  readonly simulator: Simulator;
  /** Puts empty books of another name in the place of these, at the same port. */
  replaceBooks(): Promise<void>;
  close(): Promise<void>;
}

/** How one is opened. */
export interface ProcessorAtPortOptions {
  readonly token?: string;
  /** One that is there and stays its owner's; one with empty books unless given. */
  readonly simulator?: Simulator;
  /** What it says of itself; true unless given. */
  readonly simulated?: boolean;
}

/** Serves a simulator by the contract. */
export async function processorAtPort(options: ProcessorAtPortOptions = {}): Promise<ProcessorAtPort> {
  const clock = manualClock();
  const fresh = () => openSimulator({ file: ":memory:", clock, baseUrl: () => "http://shop.test" });
  const verifiers = embeddedVerifiers(await temporaryKeys());
  let simulator = options.simulator ?? fresh();
  let server: Server;
  const serve = async (port: number) => {
    const identity = { processorId: simulator.id, simulated: options.simulated ?? true };
    const doors = processorDoors({ processor: simulator, identity, token: options.token });
    const modules = [{ name: "processor", routes: () => {}, doors }];
    server = await startServer({ modules, port, host: "127.0.0.1", verifiers, log: quietLog });
  };
  await serve(0);
  const close = async () => {
    await server.stop(0);
    if (options.simulator === undefined) simulator.close();
  };
  return {
    get url() {
      return `${server.url}${PROCESSOR_PATH.replace(/\/$/, "")}`;
    },
    clock,
    get simulator() {
      return simulator;
    },
    async replaceBooks() {
      const { port } = server;
      await close();
      simulator = fresh();
      await serve(port);
    },
    close,
  };
}
