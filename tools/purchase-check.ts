// What `helm test` runs: a client from outside that buys a thing, or reads where it may not sell. Every step is a sentence, and the exit code tells.

import { existsSync, readFileSync } from "node:fs";
import { request as http, type IncomingMessage } from "node:http";
import { request as https } from "node:https";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { create, type DescMethodUnary, fromJson, type MessageInitShape, type MessageShape, toJson } from "@bufbuild/protobuf";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { loadOrCreateAccountKey, signAccountToken } from "#runtime/tokens.ts";

const HELP = `node tools/purchase-check.ts --url URL [options]

Buys a thing as a client from outside would, from the listing to the seller's balance, and says each step. Without tokens it only reads.

  --url URL       where the marketplace is; {service} stands for each service's name, where there is no gateway
  --host NAME     the host that is asked for at a gateway, where that is not the URL's
  --issuer URL    the built-in issuer, which gives a token to anybody
  --keys FOLDER   the folder with accounts.pem, where the marketplace takes tokens by its own keys
  --tokens FOLDER the files seller and buyer with a token each, and payment-method with a token of the processor`;

/** How long a thing may take that comes about by itself. */
const WAIT_MS = 90_000;
/** How long one call may take. */
const CALL_MS = 15_000;
const PRICE = { currencyCode: "USD", amountMinor: 5_000n };

/** Where the marketplace is. */
export interface Place {
  readonly url: string;
  readonly host?: string | undefined;
}

/** Who takes part, each by a token; the operator only where anybody may be one. */
export interface Parties {
  readonly seller: string;
  readonly buyer: string;
  readonly operator?: string;
  readonly paymentMethod: string;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Calls over Connect as curl would. What was not answered is tried again for a while: reads, and commands, which carry the same request id. */
export function callerOf({ url, host }: Place) {
  return async <M extends DescMethodUnary>(method: M, token: string | undefined, input: MessageInitShape<M["input"]>) => {
    const service = /^marketplace\.(\w+)\./.exec(method.parent.typeName)?.[1] ?? "";
    const target = new URL(`/${method.parent.typeName}/${method.name}`, url.replace("{service}", service));
    const body = JSON.stringify(toJson(method.input, create(method.input, input)));
    const headers = {
      "content-type": "application/json",
      ...(token && { authorization: `Bearer ${token}` }),
      ...(host && { host }),
    };
    const end = Date.now() + WAIT_MS;
    for (;;) {
      const answer = await post(target, headers, body, host).catch((error: Error) => unanswered(error, target));
      if (answer.status === 200) return fromJson(method.output, JSON.parse(answer.text)) as MessageShape<M["output"]>;
      if (![404, 429, 502, 503, 504].includes(answer.status) || Date.now() > end) {
        throw new Error(`${method.parent.typeName}/${method.name} at ${target.origin} answers ${answer.status}: ${answer.text}`);
      }
      await sleep(1_000);
    }
  };
}

/** Why nothing was answered, to be tried again; a certificate that is not trusted will not be by waiting. */
function unanswered({ message }: Error, { origin }: URL): Answer {
  if (!/certificate/i.test(message)) return { status: 503, text: message };
  const todo =
    "Where an authority of your own has signed it, name that in the chart's tests.gatewayAuthority, or in NODE_EXTRA_CA_CERTS";
  throw new Error(`the certificate of ${origin} is not trusted: ${message}. ${todo}`);
}

function post(url: URL, headers: Record<string, string>, body: string, host: string | undefined): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const take = (response: IncomingMessage) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text })).on("error", reject);
    };
    const options = { method: "POST", headers, timeout: CALL_MS };
    // The gateway's certificate is of the host that is asked for.
    const request =
      url.protocol === "https:" ? https(url, { ...options, ...(host && { servername: host }) }, take) : http(url, options, take);
    request.on("timeout", () => request.destroy(new Error(`no answer within ${CALL_MS / 1000} s`)));
    request.on("error", reject).end(body);
  });
}

async function until(what: string, ask: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + WAIT_MS; !(await ask()); await sleep(500)) {
    if (Date.now() > end) throw new Error(`${what} did not come true within ${WAIT_MS / 1000} s`);
  }
}

/** Reads what everybody may read, and buys where there are parties to it. Says each step. */
export async function check(call: ReturnType<typeof callerOf>, parties: Parties | undefined, say: (line: string) => void) {
  const { categories } = await call(CatalogService.method.listCategories, undefined, {});
  say(`The catalog answers and has ${categories.length} categories.`);
  await call(SearchService.method.searchListings, undefined, { query: "bike" });
  say("Search answers.");
  if (parties === undefined) {
    say("Nothing was bought: there are no tokens to buy with.");
    return;
  }
  const { seller, buyer, operator, paymentMethod } = parties;
  const soldFor = async () => {
    const { balances } = await call(PaymentService.method.getBalance, seller, {});
    return balances.find(({ available }) => available?.currencyCode === PRICE.currencyCode)?.available?.amountMinor ?? 0n;
  };
  const before = await soldFor();
  const listing = { title: "Test of the installation", categoryId: "road-bikes", condition: Condition.GOOD, price: PRICE };
  const created = await call(CatalogService.method.createListing, seller, { requestId: newId(), publish: true, listing });
  const listingId = created.listing?.listingId ?? "";
  say(`A seller offers the listing ${listingId}.`);
  await until("that search finds the listing", async () => {
    const found = await call(SearchService.method.searchListings, undefined, { query: listing.title, pageSize: 100 });
    return JSON.stringify(toJson(SearchService.method.searchListings.output, found)).includes(listingId);
  });
  say("Search finds it.");
  const lines = [{ listingId, unitPrice: PRICE }];
  const home = { recipient: "Test", lines: ["1 Way"], city: "Springfield", postalCode: "12345", countryCode: "US" };
  const { address } = await call(AccountService.method.createAddress, buyer, { requestId: newId(), ...home });
  const addressId = address?.addressId ?? "";
  const bought = { requestId: newId(), addressId, paymentMethodToken: paymentMethod, lines };
  const { order } = await call(OrderService.method.placeOrder, buyer, bought);
  if (order?.state !== OrderState.PAID) throw new Error(`the order is in the state ${order?.state}, not paid`);
  const { orderId } = order;
  say(`A buyer has paid the order ${orderId}.`);
  await call(OrderService.method.shipOrder, seller, { requestId: newId(), orderId, carrier: "Test", trackingNumber: "TEST-1" });
  await call(OrderService.method.confirmOrder, buyer, { requestId: newId(), orderId, rating: { stars: 5 } });
  await until("that the seller has the money", async () => (await soldFor()) > before);
  say("It was shipped and confirmed, and the seller has the money.");
  await call(AccountService.method.deleteAddress, buyer, { requestId: newId(), addressId });
  if (operator === undefined) return;
  const { balanced } = await call(OpsService.method.checkBooks, operator, {});
  if (!balanced) throw new Error("the books do not balance");
  say("The books balance.");
}

/** The parties that the options give. */
async function partiesOf(options: {
  issuer?: string | undefined;
  keys?: string | undefined;
  tokens?: string | undefined;
}): Promise<Parties | undefined> {
  const { issuer, keys, tokens } = options;
  if (tokens !== undefined) {
    const read = (name: string) => readFileSync(path.join(tokens, name), "utf8").trim();
    return { seller: read("seller"), buyer: read("buyer"), paymentMethod: read("payment-method") };
  }
  // New accounts: what was bought before is none of theirs.
  const [seller, buyer, operator] = [newId(), newId(), newId()];
  const paymentMethod = "tok_approved";
  if (issuer !== undefined) {
    const token = (account: string, isOperator = false) => issuedBy(issuer, account, isOperator);
    return { seller: await token(seller), buyer: await token(buyer), operator: await token(operator, true), paymentMethod };
  }
  if (keys === undefined || !existsSync(path.join(keys, "accounts.pem"))) return undefined;
  const own = await loadOrCreateAccountKey(keys);
  const sign = (accountId: string, isOperator = false) => signAccountToken(own, { accountId, operator: isOperator });
  return { seller: await sign(seller), buyer: await sign(buyer), operator: await sign(operator, true), paymentMethod };
}

async function issuedBy(issuer: string, account: string, isOperator: boolean): Promise<string> {
  const body = new URLSearchParams({ account, ...(isOperator && { operator: "true" }) });
  const response = await fetch(new URL("/token", issuer), { method: "POST", body });
  const text = await response.text();
  if (!response.ok) throw new Error(`the issuer at ${issuer} answers ${response.status}: ${text}`);
  return (JSON.parse(text) as { access_token: string }).access_token;
}

async function main(): Promise<void> {
  const text = { type: "string" } as const;
  const options = { url: text, host: text, issuer: text, keys: text, tokens: text, help: { type: "boolean" } } as const;
  const { values } = parseArgs({ options });
  if (values.help || values.url === undefined) {
    console.log(HELP);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  try {
    await check(callerOf({ url: values.url, host: values.host }), await partiesOf(values), (line) => console.log(line));
    console.log("This installation works.");
  } catch (error) {
    process.exitCode = 1;
    console.log(`This installation does not work: ${(error as Error).message}`);
  }
}

if (import.meta.main) await main();
