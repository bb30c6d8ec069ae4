import assert from "node:assert/strict";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { accountOf, callOf } from "#runtime/call.ts";
import { createDirectory } from "#runtime/clients.ts";
import type { ManualClock } from "#runtime/clock.ts";
import { fail, reason, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import { pageTokens } from "#runtime/pages.ts";
import { startServer } from "#runtime/server.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { embeddedVerifiers, serviceTokens, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { entities, type PaymentDatabase } from "../../services/payment/entities.ts";
import { openHttpProcessor } from "../../services/payment/http-processor.ts";
import { migrations } from "../../services/payment/migrations/index.ts";
import { type Processor, ProcessorTimeout, ProcessorUnreachable } from "../../services/payment/processor.ts";
import { payment } from "../../services/payment/service.ts";
import { openSimulator, type Simulator } from "../../services/payment/simulator.ts";
import { simulatorDoors } from "../../services/payment/simulator-doors.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";
import type { Carrier } from "../support/server.ts";
import { processorAtPort } from "./processor-at-port.ts";

/** Thrown where a test lets the process die: nobody catches it. */
export class Crash extends Error {}

/** What goes wrong at the next point of a kind; asked at every point, by its name, such as "authorize/before" or "claim/after". */
export interface Faults {
  /** Every point passed, in order. */
  readonly points: string[];
  /** Gives the error to be thrown at this point; undefined lets it pass. */
  at: (point: string, index: number) => Error | undefined;
  /** Runs at every point before it is decided; for what happens meanwhile. */
  meanwhile?: ((point: string) => Promise<void>) | undefined;
}

/** Payment with the simulator, and callers of every kind. */
export interface Bank {
  readonly database: PaymentDatabase;
  readonly clock: ManualClock;
  readonly simulator: Simulator;
  readonly module: ServiceModule;
  readonly faults: Faults;
  readonly jobs: Jobs;
  /** The payout destinations of accounts, as the account service has them: token by `<account>/<currency>`. */
  readonly destinations: Map<string, { token: string; currencyCode: string }>;
  readonly order: Client<typeof PaymentService>;
  readonly ops: Client<typeof PaymentService>;
  readonly anonymous: Client<typeof PaymentService>;
  account(accountId: string, options?: { operator?: boolean }): Client<typeof PaymentService>;
  /** The type names of the events of an aggregate, in order. */
  events(aggregateId: string): Promise<string[]>;
  /** Lets time pass and jobs run until nothing is under way. */
  settle(): Promise<void>;
  /** Expects the books to be right. */
  checkBooks(): Promise<void>;
  close(): Promise<void>;
}

const PAYOUT_DESTINATION_MISSING = reason("PAYOUT_DESTINATION_MISSING", Code.NotFound, "Missing.");

/** Opens an empty one. */
export async function openBank(carrier: Carrier): Promise<Bank> {
  const { database, clock } = await memoryDatabase(entities, migrations, { service: "payment" });
  const keys = await temporaryKeys();
  const verifiers = embeddedVerifiers(keys);
  const directory = createDirectory({ verifiers, log: quietLog });
  const faults: Faults = { points: [], at: () => undefined };
  const destinations = new Map<string, { token: string; currencyCode: string }>();
  const simulator = openSimulator({ file: ":memory:", clock, baseUrl: () => "http://127.0.0.1:1" });
  const faulty = faultyDatabase(database, faults);
  // Whoever calls payment over a network has payment call the processor so, too.
  const outside = carrier === "memory" ? undefined : await processorOutside(simulator);
  const module = payment({
    database: faulty,
    clients: directory.clientsFor(serviceTokens(keys, "payment")),
    clock,
    log: quietLog,
    pages: pageTokens({ secret: keys.pageTokens, clock }),
    processor: faultyProcessor(outside?.processor ?? simulator, faults),
    doors: simulatorDoors(simulator),
  });
  directory.host([accountModule(destinations), module]);
  const server =
    carrier === "memory"
      ? undefined
      : await startServer({ modules: [module], port: 0, host: "127.0.0.1", verifiers, log: quietLog });
  const jobs = startJobs({ database, handlers: module.jobs });
  const client = (...interceptors: Interceptor[]) =>
    createClient(
      PaymentService,
      server === undefined
        ? directory.transport(PaymentService, undefined, interceptors)
        : createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", interceptors }),
    );
  const withHeader = (name: string, value: () => Promise<string>) =>
    client((next) => async (request) => {
      request.header.set(name, await value());
      return next(request);
    });
  const ops = withHeader(SERVICE_TOKEN_HEADER, serviceTokens(keys, "ops"));
  return {
    database,
    clock,
    simulator,
    module,
    faults,
    jobs,
    destinations,
    order: withHeader(SERVICE_TOKEN_HEADER, serviceTokens(keys, "order")),
    ops,
    anonymous: client(),
    account(accountId, { operator = false } = {}) {
      const token = signAccountToken(keys, { accountId, operator });
      return withHeader("authorization", async () => `Bearer ${await token}`);
    },
    async events(aggregateId) {
      const rows = await database.sql
        .selectFrom("outbox")
        .select("type")
        .where("aggregate_id", "=", aggregateId)
        .orderBy("sequence")
        .execute();
      return rows.map((row) => row.type.split(".").at(-1) ?? "");
    },
    settle: () => settle(database, clock, jobs),
    async checkBooks() {
      const { findings } = await ops.checkLedger({});
      assert.deepEqual(findings, []);
    },
    async close() {
      await jobs.stop(0);
      await server?.stop(0);
      await outside?.close();
      simulator.close();
      await database.close();
    },
  };
}

/** The simulator as a process of its own would serve it. */
async function processorOutside(simulator: Simulator): Promise<{ processor: Processor; close(): Promise<void> }> {
  const there = await processorAtPort({ simulator });
  const processor = openHttpProcessor({ url: there.url, token: undefined, admit: async () => {} });
  return {
    processor,
    async close() {
      processor.close();
      await there.close();
    },
  };
}

async function settle(database: PaymentDatabase, clock: ManualClock, jobs: Jobs): Promise<void> {
  for (let round = 0; round < 40; round++) {
    clock.advance(Math.round(2_000 * 1.3 ** round));
    await jobs.runDue();
    const { steps } = await database.sql
      .selectFrom("payment")
      .select((eb) => eb.fn.countAll<number>().as("steps"))
      .where("step", "<>", "")
      .executeTakeFirstOrThrow();
    const { payouts } = await database.sql
      .selectFrom("payout")
      .select((eb) => eb.fn.countAll<number>().as("payouts"))
      .where("state", "=", "PENDING")
      .executeTakeFirstOrThrow();
    if (steps === 0 && payouts === 0) {
      return;
    }
  }
  assert.fail("something stays under way");
}

/** The account service, as far as payment calls it. */
function accountModule(destinations: Bank["destinations"]): ServiceModule {
  return {
    name: "account",
    consumers: [],
    jobs: [],
    recurring: [],
    routes: (router) => {
      router.service(AccountService, {
        async getPayoutDestination({ currencyCode }, context) {
          const found = destinations.get(`${accountOf(callOf(context))}/${currencyCode}`);
          if (found === undefined) {
            return fail(PAYOUT_DESTINATION_MISSING);
          }
          return {
            payoutDestination: { destinationToken: found.token, hint: found.token.slice(-4), currencyCode: found.currencyCode },
          };
        },
      });
    },
  };
}

/** Passes the points before and after a piece of work. */
async function between<T>(faults: Faults, name: string, work: () => Promise<T>): Promise<T> {
  const pass = async (when: string) => {
    const point = `${name}/${when}`;
    faults.points.push(point);
    await faults.meanwhile?.(point);
    const error = faults.at(point, faults.points.length - 1);
    if (error !== undefined) {
      throw error;
    }
  };
  await pass("before");
  const result = await work();
  await pass("after");
  return result;
}

/** A processor behind a line that fails where the test says. */
function faultyProcessor(simulator: Processor, faults: Faults): Processor {
  return {
    authorize: (...args) => between(faults, "authorize", () => simulator.authorize(...args)),
    capture: (...args) => between(faults, "capture", () => simulator.capture(...args)),
    void: (...args) => between(faults, "void", () => simulator.void(...args)),
    refund: (...args) => between(faults, "refund", () => simulator.refund(...args)),
    payout: (...args) => between(faults, "payout", () => simulator.payout(...args)),
    find: (kind, key, signal) => between(faults, "find", () => simulator.find(kind, key, signal)),
    books: (...args) => simulator.books(...args),
  };
}

/** The database with a point before and after each transaction. */
function faultyDatabase(database: PaymentDatabase, faults: Faults): PaymentDatabase {
  return new Proxy(database, {
    get(target, property) {
      const value = Reflect.get(target, property, target) as unknown;
      if (typeof value !== "function") {
        return value;
      }
      const bound = value.bind(target) as (...args: unknown[]) => Promise<unknown>;
      return property === "transaction" || property === "claim" || property === "command"
        ? (...args: unknown[]) => between(faults, property, () => bound(...args))
        : bound;
    },
  });
}

/** Lets the first point that fits fail, once. */
export function failOnce(faults: Faults, fits: (point: string) => boolean, error: () => Error): void {
  let done = false;
  faults.at = (point) => {
    if (done || !fits(point)) {
      return undefined;
    }
    done = true;
    return error();
  };
}

/** The processor does not answer. */
export const timeout = () => new ProcessorTimeout("a test");
/** The processor is out of reach. */
export const unreachable = () => new ProcessorUnreachable("a test");

/** When the fee has no minimum, and when it has one. */
export const LISTED_2025 = Date.UTC(2025, 5, 1);
export const LISTED_2026 = Date.UTC(2026, 5, 1);

/** What a test says of a payment. */
export interface PaymentFields {
  paymentId?: string;
  orderId?: string;
  buyerId?: string;
  sellerId?: string;
  requestId?: string;
  token?: string;
  currencyCode?: string;
  /** The amounts of the lines, in minor units. */
  amounts?: readonly bigint[];
  listingTime?: number;
}

/** An AuthorizePayment request that nothing is wrong with: one line of $100.00. */
export function authorization(fields: PaymentFields = {}) {
  const { currencyCode = "USD", amounts = [10_000n], listingTime = LISTED_2025 } = fields;
  const paymentId = fields.paymentId ?? newId();
  return {
    requestId: fields.requestId ?? `${paymentId}/authorize`,
    paymentId,
    orderId: fields.orderId ?? newId(),
    buyerId: fields.buyerId ?? newId(),
    sellerId: fields.sellerId ?? newId(),
    lines: amounts.map((amountMinor) => ({
      listingId: newId(),
      amount: { currencyCode, amountMinor },
      listingTime: timestampFromMs(listingTime),
    })),
    paymentMethodToken: fields.token ?? "tok_approved",
  };
}

/** A command on a payment under a new request_id. */
export function command(paymentId: string): { requestId: string; paymentId: string } {
  return { requestId: newId(), paymentId };
}

/** A payment that has come so far; gives its request. */
export async function paid(bank: Bank, to: "authorized" | "captured" | "released", fields: PaymentFields = {}) {
  const request = authorization(fields);
  await bank.order.authorizePayment(request);
  if (to !== "authorized") {
    await bank.order.capturePayment(command(request.paymentId));
  }
  if (to === "released") {
    await bank.order.releaseEscrow(command(request.paymentId));
  }
  return request;
}

/** Expects a call to fail with a reason, and a code where one is given; gives the error. */
export async function refused(call: Promise<unknown>, reasonName: string, code?: Code): Promise<ConnectError> {
  const error = await call.then(
    () => assert.fail(`expected ${reasonName}`),
    (thrown: unknown) => thrown,
  );
  assert.equal(reasonOf(error), reasonName, String((error as Error)?.stack));
  assert.ok(error instanceof ConnectError);
  if (code !== undefined) {
    assert.equal(error.code, code);
  }
  return error;
}
