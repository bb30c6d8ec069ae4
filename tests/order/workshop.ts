import { create, type MessageShape } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ManualClock } from "#runtime/clock.ts";
import { fail, reason, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { entities, type OrderDatabase, type OrderTransaction } from "../../services/order/entities.ts";
import type { Held } from "../../services/order/lease.ts";
import { migrations } from "../../services/order/migrations/index.ts";
import { changeState, insertOrder, type OrderRecord, readOrder } from "../../services/order/orders.ts";
import {
  type Course,
  createSagas,
  type Lease,
  LeaseLost,
  type Saga,
  type Sagas,
  type Step,
  type StepCall,
} from "../../services/order/saga.ts";
import { readSteps, stepsAhead, writeSteps } from "../../services/order/steps.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";

/** The neighbour's refusal in these tests, and what the buyer gets for it. */
export const REFUSED = reason("REFUSED", Code.FailedPrecondition, "No.");

/** What happens to a call of the outside world. */
export type Fault = "lost request" | "lost answer" | "refusal";

/** A world outside with as many things as there are steps: each is done or taken back, by request_id, in whatever order the calls arrive. */
export class World {
  readonly things = new Map<string, "done" | "taken back">();
  /** Every call that arrived: its request_id. */
  readonly calls: string[] = [];
  /** What happens to the next call of a name; "always" until it is taken away. */
  readonly faults = new Map<string, { fault: Fault; always?: true }>();
  /** Runs before a call of a name has an effect. */
  readonly before = new Map<string, () => Promise<unknown>>();

  async do(call: StepCall, name: string): Promise<MessageShape<typeof StringValueSchema>> {
    await this.#arrive(call, name, () => {
      if (this.things.get(name) === "taken back") {
        fail(REFUSED);
      }
      this.things.set(name, "done");
    });
    return create(StringValueSchema, { value: `answer of ${name}` });
  }

  async undo(call: StepCall, name: string): Promise<void> {
    await this.#arrive(call, `undo ${name}`, () => this.things.set(name, "taken back"));
  }

  async #arrive(call: StepCall, name: string, effect: () => unknown): Promise<void> {
    await this.before.get(name)?.();
    const found = this.faults.get(name);
    if (found !== undefined && found.always === undefined) {
      this.faults.delete(name);
    }
    if (found?.fault === "lost request") {
      fail(UNAVAILABLE);
    }
    this.calls.push(call.requestId);
    if (found?.fault === "refusal") {
      fail(REFUSED);
    }
    effect();
    if (found?.fault === "lost answer") {
      throw new ConnectError("the answer is lost", Code.DeadlineExceeded);
    }
  }
}

/** The steps of the saga in these tests. */
export const stepNames = ["one", "two", "three"] as const;

/** How a process loses its database: at its nth write, before or after it took effect; for good, or for that one write. */
export interface Death {
  readonly atWrite: number;
  readonly when: "before" | "after";
  readonly revives?: true;
}

/** One order, and a saga of three steps on it. */
export interface Workshop {
  readonly database: OrderDatabase;
  readonly clock: ManualClock;
  readonly world: World;
  readonly orderId: string;
  /** The lease under which the order was written. */
  readonly lease: Lease;
  /** A process of its own, whose database may die at a moment. */
  process(dies?: Death): Sagas;
  /** Time goes by until every lease has run out; then drives as the job does, until the saga rests. Answers how many tries that took. */
  recover(): Promise<number>;
  state(): Promise<string | undefined>;
  steps(): Promise<Record<string, string>>;
  /** What the course heard: "delayed", "refused <reason>". */
  readonly heard: string[];
}

/** Opens one. `over` changes single steps, or records some as begun with the order. */
export async function openWorkshop(
  over: { run?: (saga: Saga, world: World) => Promise<void>; ahead?: readonly string[] } = {},
): Promise<Workshop> {
  const { database, clock } = await memoryDatabase(entities, migrations, { service: "order" });
  const world = new World();
  const owner = newId();
  const orderId = newId();
  const heard: string[] = [];
  const lease = await database.transaction(async (tx): Promise<Lease> => {
    const fields = newOrder(orderId, { lease_owner: owner, lease_expire_time: tx.now + 30_000 });
    if (over.ahead === undefined) {
      await insertOrder(tx, fields);
      return { owner };
    }
    const steps = stepsAhead(over.ahead, tx.now);
    return { owner, fresh: { order: await insertOrder(tx, { ...fields, saga: writeSteps(steps) }), steps } };
  });
  const course = (db: OrderDatabase) => async (): Promise<Course | undefined> => {
    let order = await readOrder(db.sql, orderId);
    if (order === undefined || order.state === "PAID" || order.state === "CANCELLED") {
      return undefined;
    }
    const move = async (tx: OrderTransaction, held: Held, to: "PAID" | "CANCELLING" | "CANCELLED") => {
      const next = await changeState(tx, order as OrderRecord, to, {}, { held, otherwise: () => new LeaseLost() });
      tx.afterCommit(() => {
        order = next;
      });
    };
    return {
      direction: order.state === "CANCELLING" ? "back" : "forward",
      run: async (saga) => {
        await (over.run ?? threeSteps)(saga, world);
        await saga.settle((tx, held) => move(tx, held, "PAID"));
      },
      refused: async (tx, held, error, pending) => {
        heard.push(`refused ${reasonOf(error)}`);
        await move(tx, held, pending ? "CANCELLING" : "CANCELLED");
      },
      undone: (tx, held) => move(tx, held, "CANCELLED"),
      delayed: async () => heard.push("delayed"),
      describe: () => "in a test",
    };
  };
  const process = (dies?: Death) => {
    const db = dies === undefined ? database : mortal(database, dies);
    return createSagas({ database: db, log: quietLog, course: course(db), ended: async () => {} });
  };
  return {
    database,
    clock,
    world,
    orderId,
    lease,
    heard,
    process,
    async recover() {
      for (let tries = 1; tries <= 20; tries++) {
        clock.advance(31_000);
        const rested = await process()
          .drive(orderId)
          .catch(() => undefined);
        if (rested === true) {
          return tries;
        }
      }
      throw new Error("the saga does not come to rest.");
    },
    state: async () => (await readOrder(database.sql, orderId))?.state,
    async steps() {
      const steps = await readSteps(database.sql, orderId);
      return Object.fromEntries([...steps.values()].map((row) => [row.step, row.state]));
    },
  };
}

async function threeSteps(saga: Saga, world: World): Promise<void> {
  for (const name of stepNames) {
    await saga.step(name, stepOf(world, name));
  }
}

/** A step on the world, with its undo. */
export function stepOf(world: World, name: string): Step<typeof StringValueSchema> {
  return {
    result: StringValueSchema,
    refusals: { REFUSED },
    run: (call) => world.do(call, name),
    undo: (call) => world.undo(call, name),
  };
}

/** A database of a process that dies: from a write on, nothing is written any more. */
function mortal(database: OrderDatabase, dies: Death): OrderDatabase {
  let writes = 0;
  const dead = () => Promise.reject(new Error("the process is dead."));
  return {
    ...database,
    service: database.service,
    clock: database.clock,
    log: database.log,
    get sql() {
      return database.sql;
    },
    async transaction(work, options) {
      writes++;
      if ((writes > dies.atWrite && dies.revives === undefined) || (writes === dies.atWrite && dies.when === "before")) {
        return dead();
      }
      const result = await database.transaction(work, options);
      return writes === dies.atWrite ? dead() : result;
    },
  };
}

/** An order of one line that nothing is special about. */
export function newOrder(orderId: string, lease: { lease_owner: string | null; lease_expire_time: number | null }) {
  return {
    orderId,
    buyerId: newId(),
    quote: {
      sellerId: newId(),
      currencyCode: "USD",
      totalMinor: 1250n,
      handlingDays: 3,
      lines: [{ listingId: newId(), title: "Seven iron", units: 1, unitPriceMinor: 1250n, listingTime: 1 }],
    },
    shipTo: { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", countryCode: "US" },
    paymentMethodToken: "tok_approved",
    lease,
    saga: "",
    waitingKey: `account:${orderId}/place`,
  };
}
