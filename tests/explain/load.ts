import { create, toBinary } from "@bufbuild/protobuf";
import { type Connection, createConnection } from "mysql2/promise";
import { ShippingAddressSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import { demo } from "../support/marketplace.ts";
import { ACCOUNTS, DRAFTS, idSql, ORDERS, PAID_OUT, standing } from "./numbered.ts";

const DAY_MS = 24 * 3600 * 1000;
const HOUR_MS = 3600 * 1000;

/** One row in 20 is the heavy seller's, ada's; one in 25 the heavy buyer's, ben's. The others are spread. */
const seller = `if(n % 20 = 0, '${demo("ada").account}', ${idSql("account", `n * 7919 % 4999 + 1`)})`;
const buyer = `if(n % 25 = 3, '${demo("ben").account}', ${idSql("account", `5000 + n * 6007 % 14999`)})`;
const currency = "if(n % 10 = 7, 'JPY', 'USD')";
const price = "(500 + n * 37 % 9500)";
const hash = "md5(n)";
const shipTo = Buffer.from(
  toBinary(
    ShippingAddressSchema,
    create(ShippingAddressSchema, { recipient: "Ben", lines: ["1 Main St"], city: "Reno", countryCode: "US" }),
  ),
).toString("hex");

/** Puts 100,000 listings and orders with everything about them into migrated, empty tables, by a few large statements, and analyses them. */
export async function load(adminUrl: string, databaseOf: (service: string) => string, now: number): Promise<void> {
  const services = Object.entries(tablesOf(now));
  // Two at a time: more would only wait for each other on the disk.
  const lanes = [services.filter((_, index) => index % 2 === 0), services.filter((_, index) => index % 2 === 1)];
  await Promise.all(
    lanes.map(async (lane) => {
      const admin = await createConnection(adminUrl.replace(/^mariadb:/, "mysql:"));
      try {
        await admin.query(
          "set foreign_key_checks = 0, unique_checks = 0, tmp_table_size = 268435456, max_heap_table_size = 268435456",
        );
        for (const [service, statements] of lane) {
          await admin.query(`use ${databaseOf(service)}`);
          for (const statement of statements) await admin.query(statement);
          await analyse(admin);
        }
      } finally {
        await admin.end();
      }
    }),
  );
}

async function analyse(admin: Connection): Promise<void> {
  const [rows] = await admin.query("show tables");
  const names = (rows as Record<string, string>[]).map((row) => Object.values(row)[0]);
  await admin.query(`analyze table ${names.join(", ")}`);
}

function tablesOf(now: number): Record<string, string[]> {
  const times = {
    /** A minute between two. */
    at: `(${now - 75 * DAY_MS} + n * 60000)`,
    later: `(${now - 75 * DAY_MS} + n * 60000 + ${2 * HOUR_MS})`,
    due: `(${now + 10 * DAY_MS} + n)`,
  };
  return {
    payment: [...paymentTables(times), ...runtimeTables(now, { aggregate: "payment", rows: ORDERS, events: 50_000 })],
    order: [...orderTables(times), ...runtimeTables(now, { aggregate: "order", rows: ORDERS, events: 50_000 })],
    catalog: [...catalogTables(times), ...runtimeTables(now, { aggregate: "listing", rows: ORDERS, events: 30_000 })],
    inventory: [...inventoryTables(times), ...runtimeTables(now, { aggregate: "listing", rows: ORDERS, events: 30_000 })],
    account: [...accountTables(times), ...runtimeTables(now, { aggregate: "account", rows: ACCOUNTS, events: 20_000 })],
    search: runtimeTables(now, { aggregate: "listing", rows: 10, events: 10 }),
  };
}

type Times = Record<"at" | "later" | "due", string>;

/** One statement: rows for the numbers 1 to `count` for which `where` holds. */
function rows(table: string, count: number, columns: Readonly<Record<string, string | number>>, where = "true"): string {
  const from = `(select seq as n from seq_1_to_${count}) as numbers`;
  return `insert into ${table} (${Object.keys(columns)
    .map((column) => `\`${column}\``)
    .join(", ")}) select ${Object.values(columns).join(", ")} from ${from} where ${where}`;
}

function catalogTables({ at, later }: Times): string[] {
  const listing = (kind: "listing" | "draft", state: string, publishTime: string) => ({
    listing_id: idSql(kind, "n"),
    seller_id: seller,
    state,
    title: "concat('Lamp number ', n)",
    description: "repeat('Bought new, used with care. ', 10)",
    category_id: "'home'",
    brand: "concat('Brand ', n % 2000)",
    condition_grade: "'GOOD'",
    currency_code: currency,
    price_minor: price,
    offered_units: 1,
    available_units: `if(${standing.resold}, 1, 0)`,
    reserved_units: `if(${standing.awaiting}, 1, 0)`,
    stock_sequence: 3,
    handling_days: 3,
    ships_from: "'US'",
    external_id: `concat('${kind}-', n)`,
    content_hash: hash,
    create_time: at,
    update_time: later,
    publish_time: publishTime,
    version: 4,
  });
  const state = `case when ${standing.resold} then 'ACTIVE' when ${standing.withdrawn} then 'WITHDRAWN' when ${standing.awaiting} then 'RESERVED' else 'SOLD' end`;
  return [
    rows("listing", ORDERS, listing("listing", state, at)),
    rows("listing", DRAFTS, listing("draft", "'DRAFT'", "null")),
    rows("brand", 2_000, { brand_key: "concat('brand ', n)", name: "concat('Brand ', n)" }),
  ];
}

function inventoryTables({ at, later, due }: Times): string[] {
  const state = `case when ${standing.resold} or ${standing.withdrawn} then 'RELEASED' when ${standing.awaiting} then 'PENDING' else 'COMMITTED' end`;
  return [
    rows("stock", ORDERS, {
      listing_id: idSql("listing", "n"),
      seller_id: seller,
      offered_units: 1,
      available_units: `if(${standing.resold} or ${standing.withdrawn}, 1, 0)`,
      reserved_units: `if(${standing.awaiting}, 1, 0)`,
      sold_units: "if(n % 100 > 12, 1, 0)",
      event_sequence: 1,
    }),
    rows("reservation", ORDERS, {
      reservation_id: idSql("order", "n"),
      state,
      expire_time: `if(${standing.awaiting}, ${due}, ${later})`,
      create_time: at,
      end_time: `if(${standing.awaiting}, null, ${later})`,
      watch_time: `if(${standing.awaiting}, ${due}, null)`,
    }),
    rows("reservation_line", ORDERS, { reservation_id: idSql("order", "n"), listing_id: idSql("listing", "n"), units: 1 }),
    // As older programs planned them.
    rows("job", ORDERS, job("inventory.expire", idSql("order", "n"), due), standing.awaiting),
  ];
}

function orderTables({ at, later, due }: Times): string[] {
  const paid = `${standing.paid} or ${standing.shipped} or ${standing.completed}`;
  const state = `case when ${standing.awaiting} then 'AWAITING_CONFIRMATION' when ${standing.paid} then 'PAID' when ${standing.shipped} then 'SHIPPED' when ${standing.completed} then 'COMPLETED' else 'CANCELLED' end`;
  const ended = `not (${standing.awaiting} or ${standing.paid} or ${standing.shipped})`;
  return [
    rows("orders", ORDERS, {
      order_id: idSql("order", "n"),
      state,
      version: 5,
      buyer_id: buyer,
      seller_id: seller,
      currency_code: currency,
      total_minor: price,
      handling_days: 3,
      payment_id: idSql("payment", "n"),
      payment_method_token: "'tok_approved'",
      ship_to: `x'${shipTo}'`,
      reservation_expire_time: later,
      confirmation_url: `if(${standing.awaiting}, 'http://localhost/confirm', '')`,
      cancel_reason: `if(${standing.resold} or ${standing.withdrawn}, 'BUYER_CANCELLED', '')`,
      carrier: `if(${standing.shipped} or ${standing.completed}, 'UPS', '')`,
      tracking_number: `if(${standing.shipped} or ${standing.completed}, md5(n), '')`,
      rating_stars: `if(${standing.completed}, 1 + n % 5, null)`,
      rating_comment: "''",
      create_time: at,
      update_time: later,
      due_time: `if(${ended}, null, ${due})`,
      paid_time: `if(${paid}, ${later}, null)`,
      ship_time: `if(${standing.shipped} or ${standing.completed}, ${later}, null)`,
      end_time: `if(${ended}, ${later}, null)`,
      event_sequence: 1,
      watch_time: `if(${ended}, null, ${due})`,
    }),
    rows("order_line", ORDERS, {
      order_id: idSql("order", "n"),
      position: 0,
      listing_id: idSql("listing", "n"),
      title: "concat('Lamp number ', n)",
      units: 1,
      unit_price_minor: price,
      listing_time: at,
    }),
    ...["reserve", "authorize", "capture", "commit"].map((step) =>
      rows("saga_step", ORDERS, {
        order_id: idSql("order", "n"),
        step: `'${step}'`,
        state: "'done'",
        attempts: 1,
        result: "repeat('x', 60)",
        reason: "''",
        start_time: at,
        update_time: at,
      }),
    ),
    // As older programs planned them.
    rows("job", ORDERS, job("order.due", idSql("order", "n"), due), `not (${ended})`),
    // What a runner that died left behind.
    rows("order_command", 500, {
      request_key: `concat('account:', ${buyer}, '/left-', n)`,
      order_id: idSql("order", "n"),
      command: "'place'",
      viewer: "'buyer'",
    }),
  ];
}

function paymentTables({ at, later }: Times): string[] {
  const voided = `(${standing.resold} and n % 2 = 0)`;
  const refunded = `((${standing.resold} and n % 2 = 1) or ${standing.withdrawn})`;
  const state = `case when ${standing.awaiting} then 'AWAITING_CONFIRMATION' when ${standing.completed} then 'RELEASED' when ${voided} then 'VOIDED' when ${refunded} then 'REFUNDED' else 'CAPTURED' end`;
  const fee = `greatest(50, floor(${price} / 10))`;
  const shard = `concat('/', ${currency}, '/', conv(substr(sha2(${idSql("order", "n")}, 256), 1, 2), 16, 10) % 16)`;
  const own = `concat('seller/', ${currency}, '/', ${seller})`;
  const payoutId = idSql("payout", "n");
  const transfer = (kind: string, debit: string, credit: string, amount: string) => ({
    transfer_id: `concat('${kind}', substr(${idSql("payment", "n")}, ${kind.length + 1}))`,
    kind: `'${kind}'`,
    state: `'POSTED'`,
    debit_account_id: debit,
    credit_account_id: credit,
    currency_code: currency,
    amount_minor: amount,
    order_id: kind === "PAYOUT" ? "''" : idSql("order", "n"),
    payment_id: kind === "PAYOUT" ? "''" : idSql("payment", "n"),
    payout_id: kind === "PAYOUT" ? payoutId : "''",
    request_id: idSql("order", "n"),
    create_time: later,
  });
  const [processor, escrow, fees] = ["processor", "escrow", "fees"].map((kind) => `concat('${kind}', ${shard})`) as [
    string,
    string,
    string,
  ];
  return [
    rows("payment", ORDERS, {
      payment_id: idSql("payment", "n"),
      order_id: idSql("order", "n"),
      buyer_id: buyer,
      seller_id: seller,
      state,
      step: "''",
      step_time: at,
      step_request_id: idSql("order", "n"),
      currency_code: currency,
      amount_minor: price,
      fee_minor: `if(${standing.completed}, ${fee}, null)`,
      payment_method_token: "'tok_approved'",
      confirmation_url: `if(${standing.awaiting}, 'http://localhost/confirm', '')`,
      decline_reason: "''",
      authorization_expire_time: `if(${standing.awaiting}, null, ${later})`,
      content_hash: hash,
      create_time: at,
      update_time: later,
      version: 4,
    }),
    rows("payment_line", ORDERS, {
      payment_id: idSql("payment", "n"),
      line_number: 0,
      listing_id: idSql("listing", "n"),
      amount_minor: price,
      listing_time: at,
    }),
    rows("ledger_transfer", ORDERS, transfer("CAPTURE", processor, escrow, price), `not (${standing.awaiting} or ${voided})`),
    rows("ledger_transfer", ORDERS, transfer("REFUND", escrow, processor, price), refunded),
    rows("ledger_transfer", ORDERS, transfer("SALE", escrow, own, `${price} - ${fee}`), standing.completed),
    rows("ledger_transfer", ORDERS, transfer("FEE", escrow, fees, fee), standing.completed),
    rows("ledger_transfer", ORDERS, transfer("PAYOUT", own, processor, `floor(${price} / 2)`), PAID_OUT),
    rows(
      "payout",
      ORDERS,
      {
        payout_id: payoutId,
        account_id: seller,
        state: "'PAID'",
        currency_code: currency,
        amount_minor: `floor(${price} / 2)`,
        destination_token: "'bank_demo_x'",
        destination_hint: "'mo_x'",
        failure_reason: "''",
        create_time: later,
        end_time: later,
        version: 2,
      },
      PAID_OUT,
    ),
    ...ledgerSums,
  ];
}

/** Accounts and statements follow from the transfers. */
const ledgerSums = [
  `insert into ledger_account (ledger_account_id, kind, currency_code, owner_id, debits_pending_minor, debits_posted_minor, credits_pending_minor, credits_posted_minor, entry_count)
   select distinct credit_account_id, 'SELLER', currency_code, substr(credit_account_id, 12), 0, 0, 0, 0, 0 from ledger_transfer where kind = 'SALE'`,
  `update ledger_account a join (select credit_account_id as id, sum(amount_minor) as total from ledger_transfer group by credit_account_id) t on t.id = a.ledger_account_id
   set a.credits_posted_minor = t.total`,
  `update ledger_account a join (select debit_account_id as id, sum(amount_minor) as total from ledger_transfer group by debit_account_id) t on t.id = a.ledger_account_id
   set a.debits_posted_minor = t.total`,
  `insert into statement_entry (ledger_account_id, entry_number, transfer_id, kind, incoming, amount_minor, balance_after_minor, order_id, payout_id, entry_time)
   select account_id, row_number() over line, transfer_id, kind, kind = 'SALE', amount_minor, sum(if(kind = 'SALE', amount_minor, -amount_minor)) over line, order_id, payout_id, create_time
   from (select *, if(kind = 'SALE', credit_account_id, debit_account_id) as account_id from ledger_transfer where kind in ('SALE', 'PAYOUT')) t
   window line as (partition by account_id order by create_time, transfer_id desc)`,
  `update ledger_account a join (select ledger_account_id as id, count(*) as entries from statement_entry group by ledger_account_id) e on e.id = a.ledger_account_id
   set a.entry_count = e.entries`,
];

function accountTables({ at }: Times): string[] {
  return [
    rows("profile", ACCOUNTS, {
      account_id: idSql("account", "n"),
      display_name: "concat('Somebody ', n)",
      name_key: "concat('somebody ', n)",
      bio: "''",
      create_time: at,
      version: 1,
    }),
    rows("address", ACCOUNTS, {
      address_id: idSql("address", "n"),
      account_id: idSql("account", "n"),
      slot: 0,
      recipient: "'Somebody'",
      lines: `'["1 Main St"]'`,
      city: "'Reno'",
      region: "'NV'",
      postal_code: "'89501'",
      country_code: "'US'",
      create_time: at,
    }),
    rows("payout_destination", 5_000, {
      account_id: idSql("account", "n"),
      currency_code: "'USD'",
      destination_token: "'bank_demo_x'",
      update_time: at,
    }),
    rows(
      "seller_rating",
      ORDERS,
      { order_id: idSql("order", "n"), seller_id: seller, stars: "1 + n % 5", comment: "''", create_time: at },
      standing.completed,
    ),
    `insert into seller_totals (account_id, one_star, two_stars, three_stars, four_stars, five_stars, completed_sales)
     select seller_id, sum(stars = 1), sum(stars = 2), sum(stars = 3), sum(stars = 4), sum(stars = 5), count(*) from seller_rating group by seller_id`,
  ];
}

function job(kind: string, key: string, dueTime: string) {
  return { kind: `'${kind}'`, job_key: key, due_time: dueTime, generation: key, attempt: 0 };
}

/** The runtime's tables as a month of work leaves them; a few rows of each kind are old enough to be removed. */
function runtimeTables(
  now: number,
  { aggregate, rows: count, events }: { aggregate: string; rows: number; events: number },
): string[] {
  const id = aggregate === "account" ? idSql("account", "n") : idSql(aggregate as "order", "n");
  const old = (retentionMs: number) => `(${now - retentionMs} - ${HOUR_MS} + n * ${Math.ceil(retentionMs / Math.max(events, 1))})`;
  const letter = {
    kind: "'job'",
    handler: `concat('${aggregate}.handler', n % 5)`,
    subject: id,
    sequence: 0,
    event_type: "''",
    event_id: "''",
    attempts: 10,
    create_time: now - 100 * DAY_MS,
    reason: "'UNAVAILABLE'",
    message: "repeat('x', 200)",
    traceparent: "''",
  };
  return [
    rows("outbox", events, {
      event_id: idSql("event", "n"),
      partition_no: "n % 16",
      aggregate_type: `'${aggregate === "listing" ? "stock" : aggregate}'`,
      aggregate_id: id,
      sequence: 1,
      type: `'marketplace.${aggregate}.v1.Changed'`,
      event: "repeat('x', 200)",
      event_time: now - 8 * DAY_MS,
      publish_time: old(7 * DAY_MS),
    }),
    ...(aggregate === "listing" ? ["stock", "listing"] : [aggregate]).map((type) =>
      rows("sequence", count, { aggregate_type: `'${type}'`, aggregate_id: id, value: 1 }),
    ),
    rows("inbox", events, {
      consumer: `concat('${aggregate}.consumer', n % 2)`,
      event_id: idSql("event", "n"),
      take_time: old(30 * DAY_MS),
    }),
    rows("replay", events, {
      request_key: `concat('account:', ${seller}, '/request-', n)`,
      request_hash: hash,
      state: "'answered'",
      answer: "repeat('x', 200)",
      create_time: now - 31 * DAY_MS,
      expire_time: `(${now} - ${HOUR_MS} + n * ${Math.ceil((30 * DAY_MS) / Math.max(events, 1))})`,
    }),
    rows("dead_letter", 300, { dead_letter_id: idSql("letter", "n"), state: "'open'", ...letter }),
    rows("dead_letter", 2_000, {
      dead_letter_id: idSql("letter", "n + 1000"),
      state: "'resolved'",
      resolve_time: `(${now} - ${95 * DAY_MS} + n * ${HOUR_MS})`,
      ...letter,
    }),
  ];
}
