import assert from "node:assert/strict";
import { meaningOf } from "#runtime/database/batch.ts";
import { metadataOf, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { entities, type PaymentDatabase } from "../../services/payment/entities.ts";
import {
  endTransfer,
  LEDGER_SHARDS,
  type NewTransfer,
  NotCovered,
  openSellerAccount,
  platformAccount,
  recordTransfers,
  sellerAccount,
  shardOf,
  transferIdOf,
} from "../../services/payment/ledger.ts";
import { availableMinor } from "../../services/payment/messages.ts";
import { migrations } from "../../services/payment/migrations/index.ts";
import { createPayout } from "../../services/payment/payouts.ts";
import { memoryDatabase } from "../support/database.ts";

describe("the ledger", () => {
  const order = newId();
  let database: PaymentDatabase;
  let seller: string;
  let sellerId: string;

  beforeEach(async () => {
    ({ database } = await memoryDatabase(entities, migrations, { service: "payment" }));
    sellerId = newId();
    seller = await database.transaction((tx) => openSellerAccount(tx, "USD", sellerId));
  });
  afterEach(() => database.close());

  const transfer = (kind: NewTransfer["kind"], amountMinor: bigint, over: Partial<NewTransfer> = {}): NewTransfer => {
    const paymentId = newId();
    const escrow = platformAccount("ESCROW", "USD", order);
    return {
      transferId: transferIdOf(paymentId, kind),
      kind,
      state: "POSTED",
      debitAccountId: kind === "CAPTURE" ? platformAccount("PROCESSOR", "USD", order) : kind === "PAYOUT" ? seller : escrow,
      creditAccountId: kind === "CAPTURE" ? escrow : kind === "SALE" ? seller : platformAccount("PROCESSOR", "USD", order),
      currencyCode: "USD",
      amountMinor,
      orderId: kind === "PAYOUT" ? "" : order,
      paymentId: kind === "PAYOUT" ? "" : paymentId,
      payoutId: kind === "PAYOUT" ? paymentId : "",
      requestId: "test",
      ...over,
    };
  };
  const record = (...transfers: NewTransfer[]) => database.transaction((tx) => recordTransfers(tx, transfers));
  const account = (id: string) =>
    database.sql.selectFrom("ledger_account").selectAll().where("ledger_account_id", "=", id).executeTakeFirstOrThrow();
  const entries = () =>
    database.sql
      .selectFrom("statement_entry")
      .selectAll()
      .where("ledger_account_id", "=", seller)
      .orderBy("entry_number")
      .execute();

  it("counts a pending transfer on both sides, and posts it once", async () => {
    const held = transfer("CAPTURE", 700n, { state: "PENDING" });
    await record(held);
    const escrow = platformAccount("ESCROW", "USD", order);
    assert.equal((await account(escrow)).credits_pending_minor, 700n);
    assert.equal((await account(escrow)).credits_posted_minor, 0n);
    await database.transaction((tx) => endTransfer(tx, held, "POSTED"));
    assert.equal((await account(escrow)).credits_pending_minor, 0n);
    assert.equal((await account(escrow)).credits_posted_minor, 700n);
    for (const end of ["POSTED", "VOIDED", "EXPIRED"] as const) {
      await assert.rejects(
        database.transaction((tx) => endTransfer(tx, held, end)),
        /not pending/,
      );
    }
  });

  it("gives a pending transfer one end of many that are tried at once", async () => {
    const held = transfer("CAPTURE", 700n, { state: "PENDING" });
    await record(held);
    const ends = Array.from({ length: 20 }, (_, i) =>
      database.transaction((tx) => endTransfer(tx, held, i % 2 === 0 ? "POSTED" : "VOIDED")),
    );
    const won = (await Promise.allSettled(ends)).filter((end) => end.status === "fulfilled");
    assert.equal(won.length, 1);
  });

  it("makes the same movement once", async () => {
    const once = transfer("CAPTURE", 100n);
    await record(once);
    await assert.rejects(record(once));
    assert.equal((await account(once.creditAccountId)).credits_posted_minor, 100n);
  });

  it("refuses a transfer between accounts of different currencies", async () => {
    const yen = platformAccount("ESCROW", "JPY", order);
    await assert.rejects(record(transfer("CAPTURE", 100n, { creditAccountId: yen })));
    await assert.rejects(
      database.transaction((tx) =>
        tx.sql
          .insertInto("ledger_transfer")
          .values({
            transfer_id: newId(),
            kind: "CAPTURE",
            state: "POSTED",
            debit_account_id: platformAccount("PROCESSOR", "USD", order),
            credit_account_id: yen,
            currency_code: "USD",
            amount_minor: 1n,
            order_id: order,
            payment_id: newId(),
            payout_id: "",
            request_id: "test",
            create_time: tx.now,
            end_time: null,
          })
          .execute(),
      ),
      /FOREIGN KEY/,
    );
  });

  it("refuses accounts that are not there, and an end that names others than the transfer, and changes nothing", async () => {
    const nobody = sellerAccount("USD", newId());
    const [escrow, processor] = [platformAccount("ESCROW", "USD", order), platformAccount("PROCESSOR", "USD", order)];
    await assert.rejects(record(transfer("CAPTURE", 100n, { creditAccountId: nobody })), /FOREIGN KEY/i);
    await assert.rejects(record(transfer("CAPTURE", 100n, { debitAccountId: nobody })));
    const pending = transfer("CAPTURE", 100n, { state: "PENDING" });
    await record(pending);
    for (const other of [{ creditAccountId: nobody }, { debitAccountId: nobody }, { currencyCode: "JPY" }, { amountMinor: 99n }]) {
      const end = database.transaction((tx) => endTransfer(tx, { ...pending, ...other }, "POSTED"));
      await assert.rejects(end, (error) => /is not pending/.test((meaningOf(error) as Error).message));
    }
    assert.equal((await account(escrow)).credits_pending_minor, 100n);
    assert.equal((await account(processor)).debits_pending_minor, 100n);
    assert.equal((await account(processor)).debits_posted_minor, 0n);
  });

  it("covers every debit of a seller, pending ones included", async () => {
    await record(transfer("CAPTURE", 1_000n), transfer("SALE", 1_000n));
    await record(transfer("PAYOUT", 600n, { state: "PENDING" }));
    await assert.rejects(record(transfer("PAYOUT", 401n, { state: "PENDING" })), NotCovered);
    await record(transfer("PAYOUT", 400n));
    assert.equal(availableMinor(await account(seller)), 0n);
  });

  it("lets as many of 30 payouts at once through as the balance covers", async () => {
    await record(transfer("CAPTURE", 1_000n), transfer("SALE", 1_000n));
    const tries = Array.from({ length: 30 }, () => record(transfer("PAYOUT", 90n, { state: "PENDING" })));
    const won = (await Promise.allSettled(tries)).filter((end) => end.status === "fulfilled");
    assert.equal(won.length, 11);
    assert.equal(availableMinor(await account(seller)), 10n);
  });

  it("says what is available also when another payout came between the look and the update", async () => {
    await record(transfer("CAPTURE", 100n));
    await record(transfer("SALE", 100n));
    let looks = 0;
    const payout = database.transaction((tx) => {
      const overtaken = tx.sql.withPlugin({
        transformQuery: ({ node }) => node,
        // The look is over: now the other one is first.
        async transformResult({ result }) {
          if (looks++ === 0) {
            await recordTransfers(tx, [transfer("PAYOUT", 70n, { state: "PENDING" })]);
          }
          return result;
        },
      });
      const between = new Proxy(tx, { get: (target, name) => (name === "sql" ? overtaken : Reflect.get(target, name, target)) });
      return createPayout(between, {
        payoutId: newId(),
        accountId: sellerId,
        currencyCode: "USD",
        amountMinor: 50n,
        destinationToken: "bank_demo",
        destinationHint: "demo",
        requestId: "test",
      });
    });
    const error = await payout.then(
      () => assert.fail("paid out"),
      (thrown: unknown) => thrown,
    );
    assert.equal(reasonOf(error), "BALANCE_TOO_LOW");
    assert.deepEqual(metadataOf(error), { available_minor: "30" });
  });

  it("refuses negative sums and uncovered debits in the table itself", async () => {
    const write = (column: "debits_posted_minor" | "credits_posted_minor", value: bigint) =>
      database.sql
        .updateTable("ledger_account")
        .set({ [column]: value })
        .where("ledger_account_id", "=", seller)
        .execute();
    await assert.rejects(write("credits_posted_minor", -1n), /ledger_account_positive/);
    await assert.rejects(write("debits_posted_minor", 1n), /ledger_account_covered/);
    await assert.rejects(record(transfer("CAPTURE", 0n)), /ledger_transfer_amount/);
  });

  it("keeps a statement with the balance after each line", async () => {
    await record(transfer("CAPTURE", 1_000n), transfer("SALE", 300n), transfer("SALE", 200n));
    const payout = transfer("PAYOUT", 450n, { state: "PENDING" });
    await record(payout);
    await database.transaction((tx) => endTransfer(tx, payout, "VOIDED"));
    assert.deepEqual(
      (await entries()).map((row) => [row.entry_number, row.incoming, row.amount_minor, row.balance_after_minor]),
      [
        [1, 1, 300n, 300n],
        [2, 1, 200n, 500n],
        [3, 0, 450n, 50n],
        [4, 1, 450n, 500n],
      ],
    );
  });

  it("numbers the lines of a statement without a gap when many write at once", async () => {
    await record(transfer("CAPTURE", 10_000n));
    await Promise.all(Array.from({ length: 20 }, () => record(transfer("SALE", 10n))));
    const rows = await entries();
    assert.deepEqual(
      rows.map((row) => row.entry_number),
      Array.from({ length: 20 }, (_, i) => i + 1),
    );
    assert.ok(rows.every((row) => row.balance_after_minor === 10n * BigInt(row.entry_number)));
  });

  it("opens a seller's account once for many at once", async () => {
    const id = newId();
    const opened = await Promise.all(
      Array.from({ length: 10 }, () => database.transaction((tx) => openSellerAccount(tx, "JPY", id))),
    );
    assert.deepEqual(new Set(opened), new Set([sellerAccount("JPY", id)]));
  });

  it("names transfers by their cause, and keeps an order in one shard", () => {
    const id = newId();
    assert.equal(transferIdOf(id, "SALE", 1), transferIdOf(id, "SALE", 1));
    assert.notEqual(transferIdOf(id, "SALE", 1), transferIdOf(id, "SALE", 2));
    assert.match(transferIdOf(id, "SALE"), /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const shards = new Set(Array.from({ length: 500 }, () => shardOf(newId())));
    assert.equal(shards.size, LEDGER_SHARDS);
  });
});
