import { setMaxListeners } from "node:events";
import { createClient } from "@connectrpc/connect";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { methodName, policyOf } from "#runtime/policy.ts";
import { watchOrder } from "../../client/watch-order.ts";
import { type Connections, openConnections } from "./connections.ts";
import { createFlows } from "./flows.ts";
import { runOpenLoop } from "./open-loop.ts";
import { type Actor, FLOWS, type FlowName, type LoadPlan } from "./plan.ts";
import { CallFailed, type Figures, Recorder } from "./recorder.ts";
import { arrivals, seededRandom } from "./schedule.ts";
import { fillStock, type Stock } from "./stock.ts";

/** How long what is under way may take after the last arrival, and after a stop by hand; then it is given up, and counts as failed. */
const DRAIN_MS = 20_000;
const STOP_DRAIN_MS = 5_000;

/** A load whose accounts and listings are there. */
export interface PreparedLoad {
  /** Runs it; `signal` ends the arrivals early. Rejects with what no server answered: a mistake in the generator. */
  run(signal: AbortSignal): Promise<Figures>;
  /** What was counted so far. */
  figures(): Figures;
  /** Arrivals under way. */
  readonly inFlight: number;
  close(): void;
}

/** Makes the accounts' addresses and puts on sale what will be bought. */
export async function prepareLoad(plan: LoadPlan): Promise<PreparedLoad> {
  const connections = openConnections(plan);
  try {
    const stock = await fillStock(plan, async (method, actor, request) => {
      const { timeoutMs } = policyOf(method);
      const { message } = await connections.next().unary(method, undefined, timeoutMs, headersOf(actor), request);
      return message;
    });
    return new Load(plan, connections, stock);
  } catch (error) {
    connections.close();
    throw error;
  }
}

/** Prepares and runs a load in this process. */
export async function runLoad(plan: LoadPlan, signal: AbortSignal = new AbortController().signal): Promise<Figures> {
  const load = await prepareLoad(plan);
  try {
    return await load.run(signal);
  } finally {
    load.close();
  }
}

class Load implements PreparedLoad {
  readonly #plan: LoadPlan;
  readonly #connections: Connections;
  readonly #stock: Stock;
  readonly #recorder = new Recorder();
  readonly #givenUp = new AbortController();
  #calls = 0;
  /** What the preparation sent. */
  readonly #before: ReturnType<Connections["attempts"]>;
  inFlight = 0;

  constructor(plan: LoadPlan, connections: Connections, stock: Stock) {
    this.#plan = plan;
    this.#connections = connections;
    this.#stock = stock;
    this.#before = connections.attempts();
    setMaxListeners(0, this.#givenUp.signal);
  }

  async run(signal: AbortSignal): Promise<Figures> {
    const { rampMs, durationMs } = this.#plan;
    let timer = setTimeout(() => this.#givenUp.abort(), rampMs + durationMs + DRAIN_MS);
    const onStop = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.#givenUp.abort(), STOP_DRAIN_MS);
    };
    signal.addEventListener("abort", onStop);
    try {
      const startTime = performance.now();
      await Promise.all(FLOWS.map((flow, index) => this.#runFlow(flow, index, startTime, signal)));
      return this.figures();
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onStop);
    }
  }

  figures(): Figures {
    const [calls, before, now] = [this.#calls, this.#before, this.#connections.attempts()];
    return this.#recorder.figures(
      before === undefined || now === undefined
        ? { calls, sent: calls, again: 0 }
        : { calls, sent: now.sent - before.sent, again: now.again - before.again },
    );
  }

  close(): void {
    this.#givenUp.abort();
    this.#connections.close();
  }

  async #runFlow(name: FlowName, index: number, startTime: number, signal: AbortSignal): Promise<void> {
    const { rates, shape, rampMs, durationMs, seed, inFlightMax } = this.#plan;
    const random = seededRandom(seed * FLOWS.length + index);
    const flow = this.#flows(random)[name];
    const figures = this.#recorder.flow(name);
    await runOpenLoop({
      arrivals: arrivals({ shape, perSecond: rates[name], rampMs, durationMs }, random),
      hasRoom: () => this.inFlight < inFlightMax,
      startTime,
      signal,
      onTurnedAway() {
        figures.arrived++;
        figures.turnedAway++;
      },
      begin: async ({ intendedTime, atMs }) => {
        figures.arrived++;
        this.inFlight++;
        this.#recorder.late(performance.now() - intendedTime);
        try {
          await flow({ from: intendedTime, measured: atMs >= rampMs });
          figures.finished++;
        } catch (error) {
          if (!(error instanceof CallFailed)) throw error;
          figures.failed++;
        } finally {
          this.inFlight--;
        }
      },
    });
  }

  #flows(random: () => number) {
    const { signal } = this.#givenUp;
    const connections = this.#connections;
    return createFlows({
      recorder: this.#recorder,
      stock: this.#stock,
      sellers: this.#plan.sellers,
      random,
      call: (method, flight, actor, request) => {
        this.#calls++;
        return this.#recorder.call(methodName(method), flight, async () => {
          const { timeoutMs } = policyOf(method);
          const { message } = await connections.next().unary(method, signal, timeoutMs, headersOf(actor), request);
          return message;
        });
      },
      watch: (orderId, actor, ending) => {
        this.#calls++;
        const client = createClient(OrderService, connections.next());
        const signedIn: Pick<typeof client, "watchOrder"> = {
          watchOrder: (request, options) => client.watchOrder(request, { ...options, headers: headersOf(actor) }),
        };
        return watchOrder(signedIn, orderId, { signal: AbortSignal.any([signal, ending]) });
      },
    });
  }
}

function headersOf(actor: Actor | undefined): Record<string, string> {
  return actor === undefined ? {} : { authorization: `Bearer ${actor.token}` };
}
