import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { until } from "./cluster.ts";
import type { Job, Outcome } from "./lab/caller.ts";
import type { Lab } from "./lab.ts";

const SELLER = "01900000-0000-7000-8000-0000000000a1";
const UNITS = 5;

/** The protocols that callers of a mesh speak. */
export const PROTOCOLS = ["gRPC", "Connect"] as const;
type Protocol = Job["protocol"];

function reserving(listingId: string, reservationId: string, protocol: Protocol): Job {
  const expireTime = new Date(Date.now() + 3_600_000).toISOString();
  const request = { requestId: "{id}", reservationId, lines: [{ listingId, units: 1 }], expireTime };
  return { as: "order", protocol, method: "inventory/reserve", request, timeoutMs: 5_000 };
}

/** The catalog says how many units a listing has; fails unless so many are available now. */
function setUnits(lab: Lab, listingId: string, expectedUnits?: number): Promise<Outcome> {
  const request = {
    requestId: "{id}",
    listingId,
    sellerId: SELLER,
    units: UNITS,
    ...(expectedUnits === undefined ? {} : { expectedUnits }),
  };
  return lab.call({ as: "catalog", protocol: "gRPC", method: "inventory/setUnits", request, timeoutMs: 5_000 });
}

/** A reservation that is there, for those who read it. */
export async function reserved(lab: Lab): Promise<string> {
  const [listingId, reservationId] = [randomUUID(), randomUUID()];
  // Not what is tested, so it may take several times on a busy machine.
  await until("the listing has units", async () => (await setUnits(lab, listingId)).ok === 1);
  await until("they are reserved", async () => (await lab.call(reserving(listingId, reservationId, "gRPC"))).ok === 1);
  return reservationId;
}

/** Fails unless all calls succeeded. */
export function succeeded(outcome: Outcome): void {
  assert.equal(outcome.ok, outcome.calls, JSON.stringify({ ...outcome, answers: [] }));
}

/**
 * Gives a command whose first attempt meets a fault (`drop:1`: its answer is lost; `hold:1:1500`, `late:1:1500`: it outlives its per-try time-out) and checks
 * that the mesh tries it again, that it takes effect once, and that every attempt has the first one's answer.
 */
export async function commandTakesEffectOnce(lab: Lab, protocol: Protocol, fault: string): Promise<void> {
  const listingId = randomUUID();
  succeeded(await setUnits(lab, listingId));
  await lab.tell("inventory", { forget: true });
  const outcome = await lab.call({ ...reserving(listingId, randomUUID(), protocol), headers: { "x-lab-fault": fault } });
  succeeded(outcome);
  // An attempt that was given up may still be at work.
  const answered = async () => (await lab.attempts("inventory")).every(({ answerHash }) => answerHash !== undefined);
  await until("every attempt has come to its end", answered);
  const attempts = await lab.attempts("inventory");
  assert.ok(attempts.length > 1, "the mesh did not try again");
  assert.equal(new Set(attempts.map(({ requestId }) => requestId)).size, 1, "the attempts are of one call");
  assert.equal(new Set(attempts.map(({ answerHash }) => answerHash)).size, 1, "every attempt has the same answer");
  succeeded(await setUnits(lab, listingId, UNITS - 1));
}

/** How long the end of the chain keeps its answer, in ms: far beyond the caller's deadline. */
const HELD_MS = 6_000;
const DEADLINE_MS = 1_500;

/**
 * Calls down the chain with a deadline that its end does not keep, and checks that each one is told of less time than the one before it, and that nobody goes on
 * after the deadline.
 */
export async function deadlineEndsTheChain(lab: Lab, protocol: Protocol): Promise<void> {
  const chain = ["order", "catalog", "inventory"] as const;
  for (const workload of chain) await lab.tell(workload, { forget: true });
  await lab.tell("inventory", { fault: { kind: "hold", attempts: 9, ms: HELD_MS } });
  try {
    const { failures, failed } = await lab.call({ ...CHAIN, protocol, timeoutMs: DEADLINE_MS });
    assert.deepEqual(Object.values(failures), [1]);
    assert.match(Object.keys(failures)[0] ?? "", /^DeadlineExceeded/);
    const { beginTime, endTime } = failed[0] ?? { beginTime: 0, endTime: 0 };
    const over = async () =>
      (await Promise.all(chain.map((workload) => lab.attempts(workload)))).flat().every(({ outcome }) => outcome);
    await until("every attempt has come to its end", over);
    let before = DEADLINE_MS;
    for (const workload of chain) {
      const attempts = await lab.attempts(workload);
      const told = milliseconds(attempts[0]?.timeout);
      assert.ok(told <= before, `${workload} was told of ${told} ms after ${before} ms`);
      before = told;
      for (const attempt of attempts) {
        // At its deadline it may say so itself, before its caller has given it up.
        assert.notEqual(attempt.ok, true, `${workload} worked to its end`);
        assert.ok(attempt.beginTime <= endTime, `${workload} was asked after the deadline`);
        assert.ok((attempt.endTime ?? Number.POSITIVE_INFINITY) < beginTime + HELD_MS, `${workload} went on after the deadline`);
      }
    }
  } finally {
    await lab.tell("inventory", { fault: null });
  }
}

/** A call of the operators' service that goes down the whole chain. */
export const CHAIN: Omit<Job, "protocol"> = { as: "ops", method: "order/getEscrowTotals", request: {} };

/** What `grpc-timeout` and `connect-timeout-ms` say. */
function milliseconds(timeout: string | undefined): number {
  const [, number, unit = ""] = /^(\d+)([HMSmun]?)$/.exec(timeout ?? "") ?? [];
  const factors = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 0.001, n: 0.000_001, "": 1 } as const;
  return Number(number) * factors[unit as keyof typeof factors];
}
