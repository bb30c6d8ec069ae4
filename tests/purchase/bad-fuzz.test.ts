import assert from "node:assert/strict";
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import pino from "pino";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { MaintenanceService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { policyOf } from "#runtime/policy.ts";
import { contractMethods, methodPath } from "../support/contract.ts";
import { demo } from "../support/marketplace.ts";
import { type Served, serveMarketplace } from "./served.ts";
import type { Answer, Method } from "./ways.ts";

/** Runs for each method and each kind of nonsense, and the bound that keeps a slow machine from making them long. FUZZ_RUNS=2000 hunts. */
const RUNS = Number(process.env.FUZZ_RUNS ?? 12);
const PATIENCE_MS = 200 * RUNS;
/** Codes that say that something broke on our side. */
const FAULTS: ReadonlySet<Code> = new Set([Code.Internal, Code.Unknown, Code.DataLoss]);

const methods = (await contractMethods())
  .filter((method): method is Method => method.methodKind === "unary")
  .filter(({ parent }) => parent.typeName !== MaintenanceService.typeName);
const isInternal = (method: Method) => {
  const { anyone, account, operator } = policyOf(method);
  return !anyone && !account && !operator;
};

describe("Nonsense from accounts and operators", () => {
  answersNonsense(
    methods.filter((method) => !isInternal(method)),
    () => ["ben", "olga", "ada"],
    (served) => served.stopBalanced(),
  );
});

// Nobody outside has a service's token. What a mad service does with it need not add up, but it breaks no other.
describe("Nonsense from services", () => {
  answersNonsense(
    methods.filter(isInternal),
    (method) => [...policyOf(method).services].map((service) => ({ service })),
    (served) => served.stop(),
  );
});

type Caller = string | { readonly service: string } | undefined;

/** Declares a test for each method: whatever it is sent, it answers without a fault. */
function answersNonsense(
  subjects: readonly Method[],
  callersOf: (method: Method) => readonly Caller[],
  stop: (served: Served) => Promise<void>,
): void {
  /** What the process would have told its operators: a fault of ours is logged as an error whatever is answered. */
  const errors: string[] = [];
  let served: Served;
  let ids: readonly string[];

  before(async () => {
    served = await serveMarketplace({ log: pino({ level: "error" }, { write: (line: string) => errors.push(line) }) });
    ids = await idsOf(served);
  });
  after(async () => {
    await stop(served);
    assert.deepEqual(errors, []);
  });

  const send = async (caller: Caller, method: Method, body: string | Buffer, headers: Record<string, string> = {}) => {
    const own = typeof caller === "object" ? { "x-souk-service-token": await served.serviceToken(caller.service) } : {};
    const who = typeof caller === "object" ? undefined : caller;
    assertNoFault(await served.post(who, method, body, { ...own, ...headers }));
    assert.deepEqual(errors.splice(0), []);
  };

  for (const method of subjects) {
    it(`is answered by ${methodPath(method).replace("marketplace.", "")} with a reason`, async function () {
      this.timeout(20_000 + 4 * PATIENCE_MS);
      const callers = callersOf(method);
      for (const caller of [undefined, ...callers]) await send(caller, method, "{}");
      const settings = { numRuns: RUNS, interruptAfterTimeLimit: PATIENCE_MS };
      let turn = 0;
      const next = () => callers[turn++ % callers.length];
      const tempting = messageOf(method.input, [...ids, newId()], 3);
      await fc.assert(
        fc.asyncProperty(tempting, (json) => send(next(), method, JSON.stringify(json))),
        settings,
      );
      const wild = fc.dictionary(fc.constantFrom(...method.input.fields.map((field) => field.jsonName), "x"), fc.jsonValue());
      await fc.assert(
        fc.asyncProperty(wild, (json) => send(next(), method, JSON.stringify(json))),
        settings,
      );
      const bytes = fc.uint8Array({ maxLength: 60 });
      await fc.assert(
        fc.asyncProperty(bytes, (each) => send(next(), method, Buffer.from(each), { "content-type": "application/proto" })),
        settings,
      );
    });
  }
}

function assertNoFault(answer: Answer): void {
  if (answer.code === undefined) return;
  assert.ok(!FAULTS.has(answer.code), `${Code[answer.code]}: ${answer.message}`);
  assert.notEqual(answer.status, 500);
  assert.equal(answer.domain, "souk");
  assert.match(answer.reason, /^[A-Z][A-Z0-9_]+$/);
  assert.ok(answer.message !== "");
}

/** Ids of things that exist: of a paid order, a sold listing, one on sale, an address, accounts. */
async function idsOf(served: Served): Promise<string[]> {
  const { addresses } = await served.ok("ben", AccountService.method.listAddresses, {});
  const [ada, ben] = [demo("ada").account, demo("ben").account];
  const { listings } = await served.ok("ada", CatalogService.method.listSellerListings, { sellerId: ada });
  const [bought, kept] = listings;
  const { order } = await served.ok("ben", OrderService.method.placeOrder, {
    requestId: newId(),
    addressId: addresses[0].addressId,
    paymentMethodToken: "tok_approved",
    lines: [{ listingId: bought.listingId, unitPrice: { ...bought.price, amountMinor: BigInt(bought.price.amountMinor) } }],
  });
  return [order.orderId, bought.listingId, kept.listingId, addresses[0].addressId, ada, ben];
}

const TEXTS = [
  "",
  " ",
  "a",
  "lamps",
  "USD",
  "JPY",
  "payment",
  "tok_approved",
  "bank_x",
  "UPS",
  "US",
  "1",
  "999999999999999999",
  "'; drop table listing; --",
  '"',
  "*",
  'NEAR("a" AND',
  "a OR NOT",
  "%_",
  "日本語の時計",
  "🙂",
  "\u0000",
  "a\u0000b",
  "\ud83d",
  "\u202eabc",
  "ﬁ",
  "../../etc/passwd",
  "2026-02-30",
  "x".repeat(61),
  "x".repeat(300),
  "é".repeat(1000),
];
/** What fields of these names hold when all is well. */
const USUAL: Readonly<Record<string, readonly string[]>> = {
  title: ["A lamp", "Bianchi Celeste road bike", "時計"],
  category_id: ["lamps", "road-bikes", "no-such-category"],
  brand: ["Bianchi", "bianchi ", "Ｂｉａｎｃｈｉ"],
  currency_code: ["USD", "JPY"],
  external_id: ["x-1", "x-2"],
  display_name: ["Ben", "Olga"],
  recipient: ["Ben"],
  city: ["Reno"],
  country_code: ["US", "JP"],
  ships_from: ["US"],
  carrier: ["UPS"],
  payment_method_token: [
    "tok_approved",
    "tok_declined",
    "tok_needs_confirmation",
    "tok_timeout_not_charged",
    "tok_capture_expired",
  ],
  destination_token: ["bank_x", "bank_fails"],
  etag: ["1", "2"],
  query: ["road bike", "bianchi", "usb-c", "時計", '24"', "-", "a AND (b"],
  service: ["payment", "order", "catalog", "nobody"],
  note: ["seen"],
  page_token: [""],
};
const NUMBERS = ["0", "1", "-1", "5000", "100000000", "100000001", "1000000000000", "9007199254740993", "9223372036854775807"];

/** A message as JSON that mostly keeps the types of its fields and often enough their rules, so that it gets far. */
function messageOf(message: DescMessage, ids: readonly string[], depth: number): fc.Arbitrary<unknown> {
  if (message.typeName === "google.protobuf.Timestamp") {
    return fc.constantFrom(
      "2026-01-01T00:00:00Z",
      "9999-12-31T23:59:59.999999999Z",
      "0001-01-01T00:00:00Z",
      "1969-12-31T23:59:59Z",
    );
  }
  const fields = message.fields.map((field) => [field.jsonName, fieldOf(field, ids, depth)] as const);
  const record = Object.fromEntries(fields);
  return fc.oneof(fc.record(record), fc.record(record, { requiredKeys: [] }));
}

function fieldOf(field: DescField, ids: readonly string[], depth: number): fc.Arbitrary<unknown> {
  switch (field.fieldKind) {
    case "list": {
      const item = field.listKind === "message" ? nested(field.message, ids, depth) : scalarOf(field, ids);
      return fc.array(item, { minLength: 1, maxLength: 3 });
    }
    case "message":
      return nested(field.message, ids, depth);
    case "map":
      return fc.constant({});
    default:
      return scalarOf(field, ids);
  }
}

function nested(message: DescMessage, ids: readonly string[], depth: number): fc.Arbitrary<unknown> {
  return depth === 0 ? fc.constant({}) : messageOf(message, ids, depth - 1);
}

function scalarOf(field: DescField, ids: readonly string[]): fc.Arbitrary<unknown> {
  if (field.name === "request_id") return fc.oneof(fc.uuid(), fc.constantFrom("again", "x".repeat(64)));
  if (field.enum !== undefined) {
    const names = field.enum.values.map((value) => value.name);
    return fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom(...names.slice(1)) },
      { weight: 1, arbitrary: fc.constantFrom(...names, 99) },
    );
  }
  switch (field.scalar) {
    case ScalarType.STRING:
      return fc.oneof(
        { weight: 9, arbitrary: fc.constantFrom(...(USUAL[field.name] ?? (/_ids?$/.test(field.name) ? ids : TEXTS))) },
        { weight: 1, arbitrary: fc.constantFrom(...TEXTS, ...ids) },
      );
    case ScalarType.BOOL:
      return fc.boolean();
    case ScalarType.BYTES:
      return fc.constantFrom("", "AAAA", "not base64!");
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return fc.oneof(fc.constantFrom("1", "100", "5000"), fc.constantFrom(...NUMBERS));
    default:
      return fc.oneof(fc.constantFrom(1, 2, 5), fc.constantFrom(0, 1, 2, 5, 100, 101, 4294967295, -1, 1.5));
  }
}
