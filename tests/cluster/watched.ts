import type { Client } from "@connectrpc/connect";
import type { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { tool } from "./cluster.ts";

/** The stream of a watched order: one call, which nobody makes again. */
export interface Watched {
  /** What it has shown of the order, one after the other. */
  readonly states: readonly OrderState[];
  /** How often it has said that nothing has changed. */
  readonly heartbeats: number;
  /** How long it was open in all, in ms; rejects with what cut it off. */
  readonly ended: Promise<number>;
}

/** Watches an order for as long as its stream lasts. */
export function watch(client: Client<typeof OrderService>, orderId: string): Watched {
  const states: OrderState[] = [];
  let heartbeats = 0;
  const read = async () => {
    const beginTime = performance.now();
    for await (const { order } of client.watchOrder({ orderId })) {
      if (order === undefined) heartbeats++;
      else states.push(order.state);
    }
    return performance.now() - beginTime;
  };
  const ended = read();
  // It may be cut off before anybody waits for its end, who hears of it all the same.
  ended.catch(() => {});
  return {
    states,
    get heartbeats() {
      return heartbeats;
    },
    ended,
  };
}

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** The time-outs that the mesh is told of a release, in ms: of its routes, of their attempts, and of connections. */
export async function timeoutsMs(release: string): Promise<number[]> {
  const told = await tool("kubectl", "-n", release, "get", "virtualservices,destinationrules", "-o", "json");
  return [...told.matchAll(/"(?:timeout|\w+Timeout)": "([^"]+)"/g)].map(([, duration = ""]) => {
    const parts = [...duration.matchAll(/([\d.]+)(ms|s|m|h)/g)];
    return parts.reduce((sum, [, count, unit = ""]) => sum + Number(count) * (UNITS_MS[unit] ?? Number.NaN), 0);
  });
}
