import assert from "node:assert/strict";
import { create, type DescMessage, type DescMethod, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { newId } from "#runtime/ids.ts";
import { silentLog } from "#runtime/log.ts";
import { SERVICE_HEADER } from "#runtime/peers.ts";
import { policyOf } from "#runtime/policy.ts";
import { type Server, startServer } from "#runtime/server.ts";
import { embeddedVerifiers, type Keys, serviceTokens, signAccountToken } from "#runtime/tokens.ts";
import { rows as accessRows } from "../policy/rows.ts";
import { contractMethods, methodPath } from "../support/contract.ts";
import { pathWithCurl } from "../support/curl.ts";
import { temporaryFolder } from "../support/database.ts";
import { demo, type TestMarketplace, testMarketplace } from "../support/marketplace.ts";
import type { Identity } from "../support/server.ts";
import { broken, oversized, withIds } from "./bad.ts";
import { type Goods, goodsIn } from "./goods.ts";
import { type Row, rows } from "./rows.ts";
import { type Call, isRead, type Way, waysTo } from "./ways.ts";

/** One call that is made in every way. */
interface Case extends Omit<Call, "headers"> {
  readonly name: string;
  readonly as: Identity;
  /** What has to come of it, beside being the same: a reason, or an answer. */
  readonly expected?: string | undefined;
  readonly tooLongForUrl?: true;
}

const ANSWERED = "an answer";
/** What nobody should ever get here. */
const FAULTS = ["INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", ""];

describe("grpc-js, connect-node, connect-web and curl", function () {
  this.timeout(60_000);
  const folder = temporaryFolder();
  let marketplace: TestMarketplace;
  let server: Server;
  let goods: Goods;
  let methods: DescMethod[];
  let ways: readonly Way[];
  let close = () => {};

  before(async () => {
    methods = await contractMethods();
    marketplace = await testMarketplace();
    goods = await goodsIn(marketplace);
    const { modules, inner, keys } = marketplace;
    server = await startServer({
      modules,
      inner,
      port: 0,
      host: "127.0.0.1",
      verifiers: embeddedVerifiers(keys),
      log: silentLog(),
    });
    ({ ways, close } = waysTo({
      baseUrl: server.url,
      directory: marketplace.directory,
      curlPath: pathWithCurl(folder.path),
      folder: folder.path,
    }));
  });
  after(async () => {
    close();
    await server.stop(1_000);
    await marketplace.stop();
    folder.remove();
  });

  it("are asked for every method of the contract", () => {
    assert.deepEqual(Object.keys(rows).sort(), methods.map(shortPath).sort());
  });

  const sameEverywhere = async (call: Case, turn: number): Promise<void> => {
    const headers = await headersOf(marketplace.keys, call);
    const able = ways.filter(
      ({ get, inMemory }) => (!get || (isRead(call.method) && !call.tooLongForUrl)) && (!inMemory || methods.includes(call.method)),
    );
    // Each way is the first to call some method: the others repeat its command.
    const order = able.map((_, index) => able[(index + turn) % able.length] as Way);
    const [firstWay, ...others] = order as [Way, ...Way[]];
    const first = await firstWay.call({ ...call, headers });
    const outcomes = await Promise.all(others.map((way) => way.call({ ...call, headers })));
    for (const [index, outcome] of outcomes.entries()) {
      assert.deepEqual(outcome, first, `${call.name}: ${others[index]?.name} differs from ${firstWay.name}`);
    }
    const came = first.error?.reason ?? ANSWERED;
    assert.ok(!FAULTS.includes(came), `${call.name}: ${JSON.stringify(first)}`);
    if (call.expected !== undefined) assert.equal(came, call.expected, `${call.name}: ${JSON.stringify(first)}`);
  };

  for (const [turn, [path, row]] of Object.entries(rows).entries()) {
    it(`get equal answers and equal reasons of ${path}`, async () => {
      const method = methods.find((each) => shortPath(each) === path);
      assert.ok(method, "the method is in the contract");
      for (const each of casesOf(method, row, goods)) await sameEverywhere(each, turn);
    });
  }

  it("get equal answers about health, at once and as a stream", async () => {
    const check = create(Health.method.check.input, { service: "" });
    const unknown = create(Health.method.check.input, { service: "nobody.v1.NobodyService" });
    const of = (method: DescMethod, message: Message, expected: string): Case => ({
      name: method.name,
      method,
      message,
      as: undefined,
      take: 1,
      expected,
    });
    const { method } = Health;
    await sameEverywhere(of(method.check, check, ANSWERED), 0);
    await sameEverywhere(of(method.check, unknown, "SERVICE_UNKNOWN"), 1);
    await sameEverywhere(of(method.list, create(method.list.input), ANSWERED), 2);
    await sameEverywhere(of(method.watch, check, ANSWERED), 3);
    await sameEverywhere(of(method.watch, unknown, ANSWERED), 4);
  });

  it("get equal reasons for what there is not", async () => {
    const known = methods.find(({ name }) => name === "GetOrder") as DescMethod;
    const message = create(known.input);
    const nowhere = (changes: object): DescMethod => ({ ...known, ...changes });
    const of = (method: DescMethod): Case => ({
      name: methodPath(method),
      method,
      message,
      as: undefined,
      take: 1,
      expected: "UNIMPLEMENTED",
    });
    await sameEverywhere(of(nowhere({ name: "GetOrders" })), 0);
    await sameEverywhere(of(nowhere({ parent: { ...known.parent, typeName: "marketplace.order.v9.OrderService" } })), 1);
  });
});

/** A good call and the bad ones that can be made of it. */
function casesOf(method: DescMethod, row: Row, goods: Goods): Case[] {
  const { as, refused } = row;
  const fresh = () => create(method.input, row.request(goods) as MessageInitShape<DescMessage>) as Message;
  const message = fresh();
  const one = (name: string, changes: Partial<Case>): Case => ({ name, method, message, as, take: 2, ...changes });
  const access = accessRows[shortPath(method)];
  assert.ok(access);
  const refusal = (expected: string) => (expected === "admitted" ? undefined : expected);
  const cases = [one("a good request", { expected: refused ?? ANSWERED })];
  const add = (name: string, bad: Message | undefined, changes: Partial<Case> = {}) => {
    if (bad !== undefined) cases.push(one(name, { message: bad, ...changes }));
  };
  // A new request_id for each: the same one for something else is a case of its own.
  add("fields that break their rules", broken(method.input, fresh()), { expected: "INVALID_REQUEST" });
  add("ids of nothing", withIds(method.input, fresh(), newId()));
  add("more bytes than it takes", oversized(method.input, fresh(), policyOf(method).maxRequestBytes + 1_000), {
    expected: "REQUEST_TOO_LARGE",
    tooLongForUrl: true,
  });
  if (refused === undefined && "requestId" in message) {
    const other = withIds(method.input, message, newId());
    add("the request_id of another request", other, { expected: "REQUEST_ID_REUSED" });
  }
  add("no token", fresh(), { as: undefined, expected: as === undefined ? undefined : refusal(access.anonymous) });
  add("a token of nobody's", fresh(), { as: { token: "none.of.ours" }, expected: "TOKEN_INVALID" });
  add("another account", fresh(), { as: demo("tess") });
  add("a service that may not", fresh(), { as: { service: "account" }, expected: "PERMISSION_DENIED" });
  return cases;
}

async function headersOf(keys: Keys, { as, method }: Pick<Case, "as" | "method">): Promise<Record<string, string>> {
  // Several services answer it, each for itself.
  const inner = method.parent.name === "MaintenanceService" ? { [SERVICE_HEADER]: "payment" } : {};
  if (as === undefined) return inner;
  if ("service" in as) return { ...inner, [SERVICE_TOKEN_HEADER]: await serviceTokens(keys, as.service)() };
  const token = "token" in as ? as.token : await signAccountToken(keys, { accountId: as.account, operator: as.operator ?? false });
  return { ...inner, authorization: `Bearer ${token}` };
}

function shortPath(method: DescMethod): string {
  return methodPath(method).replace("marketplace.", "");
}
