// What one PlaceOrder sends to MariaDB, from the server's own general log: for docs/performance.md and the test that keeps it true.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createConnection } from "mysql2/promise";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { systemClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import { silentLog } from "#runtime/log.ts";
import { embeddedVerifiers, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { openMarketplace } from "../services/marketplace.ts";
import { accounts } from "../tools/seed/listings.ts";
import { seed } from "../tools/seed/seed.ts";
import { startMariadb } from "../tools/stores/mariadb.ts";
import { ensureDatabase } from "../tools/stores/stores.ts";

/** One round trip: the statements that went together. */
export type RoundTrip = readonly string[];

/** A transaction, or a read that stands alone. */
export interface Unit {
  readonly service: string;
  readonly transaction: boolean;
  readonly roundTrips: readonly RoundTrip[];
}

const PRICE = { currencyCode: "USD", amountMinor: 5000n };

/** Buys one unit of one listing on a private MariaDB, without relays and jobs, and gives what the second purchase sent, in order. */
export async function captureStatements(): Promise<Unit[]> {
  const mariadb = await startMariadb();
  const dataDir = mkdtempSync(join(tmpdir(), "souk-bench-"));
  const names = ["account", "catalog", "inventory", "order", "payment", "search"];
  const urls = new Map<string, string>();
  for (const service of names) urls.set(service, await ensureDatabase(mariadb.url, { name: `souk_${service}`, password: "bench" }));
  const keys = await temporaryKeys();
  const marketplace = await openMarketplace({
    dataDir,
    databaseUrl: (service) => urls.get(service) ?? "",
    keys,
    verifiers: embeddedVerifiers(keys),
    clock: systemClock,
    log: silentLog(),
    baseUrl: () => "http://localhost",
  });
  try {
    const tokens = new Map<string, string>();
    for (const each of accounts) tokens.set(each.name, await signAccountToken(keys, { ...each, ttlMs: 3_600_000 }));
    const transport = (name: string, service: Parameters<typeof marketplace.directory.transport>[0]) =>
      marketplace.directory.transport(service, undefined, [
        (next) => (request) => {
          request.header.set("authorization", `Bearer ${tokens.get(name)}`);
          return next(request);
        },
      ]);
    await seed((account, service) => createClient(service, transport(account.name, service)));
    const { addresses } = await createClient(AccountService, transport("ben", AccountService)).listAddresses({});
    const seller = createClient(CatalogService, transport("ada", CatalogService));
    const listings = [1, 2].map((each) => ({
      title: `Lamp ${each}`,
      categoryId: "lamps",
      condition: Condition.GOOD,
      price: PRICE,
    }));
    const { results } = await seller.batchCreateListings({ requestId: newId(), listings, publish: true });
    const orders = createClient(OrderService, transport("ben", OrderService));
    const buy = (listingId: string) =>
      orders.placeOrder({
        requestId: newId(),
        addressId: addresses[0]?.addressId ?? "",
        paymentMethodToken: "tok_approved",
        lines: [{ listingId, unitPrice: PRICE }],
      });
    await buy(results[0]?.listingId ?? "");
    return await recorded(mariadb.url, async () => {
      const { order } = await buy(results[1]?.listingId ?? "");
      if (order?.state !== OrderState.PAID) throw new Error("the purchase that was watched did not succeed.");
    });
  } finally {
    await marketplace.stop();
    await mariadb.stop();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

/** What the server heard from the services while `work` ran. */
async function recorded(adminUrl: string, work: () => Promise<void>): Promise<Unit[]> {
  const admin = await createConnection(adminUrl.replace(/^mariadb:/, "mysql:"));
  try {
    await admin.query("SET GLOBAL log_output = 'TABLE'");
    await admin.query("SET GLOBAL general_log = 1");
    await work();
    await admin.query("SET GLOBAL general_log = 0");
    const [rows] = await admin.query(
      "SELECT user_host, thread_id, convert(argument using utf8mb4) AS text FROM mysql.general_log WHERE command_type = 'Query' AND user_host LIKE 'souk%'",
    );
    return unitsOf(rows as { user_host: string; thread_id: number; text: string }[]);
  } finally {
    await admin.end();
  }
}

function unitsOf(rows: readonly { user_host: string; thread_id: number; text: string }[]): Unit[] {
  const units: { service: string; transaction: boolean; roundTrips: string[][] }[] = [];
  const open = new Map<number, (typeof units)[number]>();
  for (const { user_host, thread_id, text } of rows) {
    // The guards against lateness are there or not by the time that is left: they would differ from machine to machine.
    const together = plain(text)
      .split("; ")
      .filter((each) => !LATENESS.some((begin) => each.startsWith(begin)));
    if (together[0]?.startsWith("set session")) continue;
    const service = /^souk_(\w+?)\[/.exec(user_host)?.[1] ?? "";
    const begins = together[0] === "start transaction";
    const last = together.at(-1);
    let unit = open.get(thread_id);
    if (unit === undefined) {
      unit = { service, transaction: begins, roundTrips: [] };
      units.push(unit);
    }
    if (unit.transaction) open.set(thread_id, unit);
    unit.roundTrips.push(together);
    if (last === "commit" || last === "rollback") open.delete(thread_id);
  }
  return inFixedOrder(units);
}

/** Reads that are sent at the same time arrive in any order. */
function inFixedOrder(units: readonly Unit[]): Unit[] {
  const sorted = [...units];
  for (let i = 1; i < sorted.length; i++) {
    const [a, b] = [sorted[i - 1], sorted[i]] as [Unit, Unit];
    if (!a.transaction && !b.transaction && a.service !== "order" && a.service < b.service) {
      sorted[i - 1] = b;
      sorted[i] = a;
    }
  }
  return sorted;
}

/** A statement without what differs from purchase to purchase. */
function plain(text: string): string {
  return text
    .replaceAll(/(?:x|_binary\s*)?'(?:[^'\\]|\\.|'')*'/gs, "?")
    .replaceAll(/\b\d+\b/g, "?")
    .replaceAll("`", "")
    .replaceAll(/\((?:\?|null)(?:, (?:\?|null))*\)/g, "(…)")
    .replaceAll(/\s+/g, " ")
    .trim();
}

/** The page, and where its generated part stands in it. */
const PAGE = new URL("../docs/performance.md", import.meta.url);
const BEGIN = "<!-- made by: npm run bench -- purchase-page -->";
const END = "<!-- end -->";

/** Why each of them is there, in the order of the page. */
const REASONS: readonly (readonly [service: string, why: string])[] = [
  ["order", "A repeat gets its stored answer and calls nobody."],
  ["catalog", "The price and the seller that the buyer agrees to, from the owner, not from a cache."],
  ["account", "The address as it is now; the order keeps a copy."],
  [
    "order",
    "Order, lines, the steps up to capture as begun, and who waits for the outcome, in its row: on disk before anybody is asked for anything. Each of these steps can be taken back whatever became of it, so nothing is written between them. The row's watch time goes on with it should this process die.",
  ],
  [
    "inventory",
    "One conditional update decides who gets the unit. The stock is read behind it for its event, whose number it has; the answer is stored with the change; the reservation's watch time gives the units back.",
  ],
  [
    "payment",
    "What the processor is about to be asked, under which key, and when a job finds out what became of it should nobody hear the answer.",
  ],
  [
    "payment",
    "The processor promised the money: the pending transfer with both its accounts, and the answer. Behind the update that must have changed its row stands what fails the rest when it did not; that the accounts are there is what the transfer's foreign keys say, and that somebody waits for the answer what the payment says.",
  ],
  [
    "payment",
    "Again: what the processor is about to be asked, of the payment as this process left it; whether it still is so decides the update.",
  ],
  ["payment", "The transfer is posted: the one update that ends it, both accounts, the answer."],
  [
    "order",
    "What became of the steps, and the units' sale as begun, which nothing takes back. It names the lease: who lost it, because the order was cancelled, writes nothing and sells nothing.",
  ],
  [
    "inventory",
    "One conditional update ends the reservation, whose lines this process made and nobody changes; another sells its units. They are the last of the listing, so but for its seller nobody can have changed the stock since, and the event is known without a look: that the stock is as it was decides the update.",
  ],
  [
    "order",
    "Paid: one update for the lease, the last step, the state with the seller's deadline, on the condition that nobody waits but who placed it; that one's answer, the event.",
  ],
];

/** The generated part of the page. */
export function pagePart(units: readonly Unit[]): string {
  const trips = units.reduce((sum, unit) => sum + unit.roundTrips.length, 0);
  const all = units.flatMap((unit) => unit.roundTrips.flat());
  const guards = all.filter((each) => each.startsWith(GUARD)).length;
  const statements = all.length - guards;
  const transactions = units.filter((unit) => unit.transaction).length;
  const lines = units.flatMap((unit, index) => {
    const [service, why] = REASONS[index] ?? [];
    if (service !== unit.service)
      throw new Error(`unit ${index + 1} is ${unit.service}'s and has no reason in bench/purchase-statements.ts.`);
    const [first, ...rest] = unit.roundTrips.map((trip) => trip.map((each) => `\`${shortly(each)}\``).join(", "));
    return [`| ${index + 1} | ${service} | ${first} | ${why} |`, ...rest.map((trip) => `| | | ${trip} | |`)];
  });
  return [
    BEGIN,
    "",
    `${statements} statements and ${guards} guards in ${trips} round trips, ${transactions} transactions. Each line is a round trip.`,
    "",
    "| | service | statements | why |",
    "|---|---|---|---|",
    ...lines,
    "",
    END,
  ].join("\n");
}

/** What the dialect adds to a packet that ends with the commit: behind each update that must change a row, and what the page calls it. */
const GUARD = "set @souk_ok";
const GUARD_SHORTLY = "set (one row?)";
/** What it adds besides where waits could outlast the deadline. */
const LATENESS = ["set @souk_since", "set @souk_in_time"] as const;

/** The verb and its table. */
function shortly(statement: string): string {
  if (statement.startsWith(GUARD)) return GUARD_SHORTLY;
  const table = /^(?:select .*? from|insert into|update|delete from) ([a-z_]+)/.exec(statement)?.[1];
  return table === undefined ? statement : `${statement.slice(0, statement.indexOf(" "))} ${table}`;
}

/** The page as it is, and as it would be with another generated part. */
export function pageWith(part: string): { now: string; made: string } {
  const now = readFileSync(PAGE, "utf8");
  const [before, rest] = [now.slice(0, now.indexOf(BEGIN)), now.slice(now.indexOf(END) + END.length)];
  return { now, made: `${before}${part}${rest}` };
}

/** Makes the page anew. */
export async function purchasePage(): Promise<void> {
  writeFileSync(PAGE, pageWith(pagePart(await captureStatements())).made);
}
