import assert from "node:assert/strict";
import { until } from "./cluster.ts";
import type { Job } from "./lab/caller.ts";
import type { Lab } from "./lab.ts";
import { reserved } from "./retries.ts";

/** Who reads in which protocol: each caller's proxy leaves replicas out by itself. */
export const READERS = [
  { as: "order", protocol: "gRPC" },
  { as: "ops", protocol: "Connect" },
] as const;

const FAILING = { kind: "unavailable", attempts: 99, ms: 0 } as const;

/** The share of reads that succeeded, before and after the failing replica was left out, for each protocol. */
export type Shares = Readonly<Record<Job["protocol"], { readonly before: number; readonly after: number }>>;

/** Lets one of three replicas fail every call, and checks that callers leave it out, that at least 99 % of their reads succeed from then on, and that it comes back once it is well. */
export async function badReplicaIsLeftOutAndComesBack(lab: Lab): Promise<Shares> {
  const reservationId = await reserved(lab);
  const [bad = ""] = await lab.pods("inventory");
  const read = (reader: (typeof READERS)[number], calls: number) =>
    lab.call({ ...reader, method: "inventory/getReservation", request: { reservationId }, timeoutMs: 2_000, workers: 10, calls });
  const ejected = (as: string) => lab.stat(as, "inventory", "ejections_active");
  await lab.tell(bad, { fault: FAILING, forget: true });
  try {
    const shares = await Promise.all(
      READERS.map(async (reader) => {
        const first = await read(reader, 200);
        assert.equal(await ejected(reader.as), 1, `${reader.as} still calls the replica that fails`);
        const then = await read(reader, 600);
        const after = then.ok / then.calls;
        assert.ok(after >= 0.99, `${reader.protocol}: ${after} of the reads succeeded; ${JSON.stringify(then.failures)}`);
        return [reader.protocol, { before: first.ok / first.calls, after }] as const;
      }),
    );
    await lab.tell(bad, { fault: null, forget: true });
    for (const reader of READERS) await until("the replica is called again", async () => (await ejected(reader.as)) === 0, 90);
    await until("it answers calls", async () => {
      await read(READERS[0], 30);
      return ((await lab.counts("inventory"))[bad] ?? 0) > 0;
    });
    return Object.fromEntries(shares) as Shares;
  } finally {
    await lab.tell(bad, { fault: null });
  }
}
