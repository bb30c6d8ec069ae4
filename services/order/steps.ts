import type { Kysely } from "kysely";
import type { StepState, Tables } from "./entities.ts";

/** One remote command of a saga, as its record has it. */
export interface StepRecord {
  readonly step: string;
  state: StepState;
  /** Tries begun, the first included. */
  attempts: number;
  /** The answer's message, serialized, once it is done. */
  result: Uint8Array | null;
  /** Why the last try, or the last try to undo it, failed; empty when none did. */
  reason: string;
  readonly start_time: number;
  update_time: number;
}

/**
 * The first steps of a saga, recorded as begun before any of them is tried: so nothing need be written between them. Whoever finds them so supposes that each was
 * tried, and takes back all of them: an answer that holds nothing lets it go on from one to the next.
 */
export function stepsAhead(names: readonly string[], now: number): StepRecord[] {
  return names.map((step) => ({
    step,
    state: "started",
    attempts: 1,
    result: new Uint8Array(),
    reason: "",
    start_time: now,
    update_time: now,
  }));
}

/** The steps as one text: a line each, so that a person can read it. No field holds a space or a line's end. */
export function writeSteps(steps: Iterable<StepRecord>): string {
  const lines: string[] = [];
  for (const { step, state, attempts, reason, start_time, update_time, result } of steps) {
    const answer = result === null ? "" : `=${Buffer.from(result).toString("base64")}`;
    lines.push(`${step} ${state} ${attempts} ${reason} ${start_time} ${update_time} ${answer}`);
  }
  return lines.join("\n");
}

/** The steps that `writeSteps` wrote, by name. */
export function parseSteps(text: string): Map<string, StepRecord> {
  const steps = new Map<string, StepRecord>();
  for (const line of text === "" ? [] : text.split("\n")) {
    const [step = "", state, attempts, reason = "", start, update, answer = ""] = line.split(" ");
    steps.set(step, {
      step,
      state: state as StepState,
      attempts: Number(attempts),
      result: answer === "" ? null : new Uint8Array(Buffer.from(answer.slice(1), "base64")),
      reason,
      start_time: Number(start),
      update_time: Number(update),
    });
  }
  return steps;
}

/** The steps of an order's saga, by name; from rows of their own, where an older program began it. */
export async function readSteps(sql: Kysely<Tables>, orderId: string): Promise<Map<string, StepRecord>> {
  const order = await sql.selectFrom("orders").select("saga").where("order_id", "=", orderId).executeTakeFirst();
  if (order?.saga != null) {
    return parseSteps(order.saga);
  }
  const rows = await sql.selectFrom("saga_step").selectAll().where("order_id", "=", orderId).execute();
  return new Map(rows.map(({ order_id: _, ...step }) => [step.step, step]));
}
