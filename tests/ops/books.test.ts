import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { CheckStockResponseSchema } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { GetEscrowTotalsResponseSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import {
  CheckLedgerResponseSchema,
  GetTrialBalanceResponseSchema,
  LedgerAccountKind,
} from "#gen/marketplace/payment/v1/payment_pb.ts";
import { type BookKeepers, checkBooks } from "../../services/ops/books.ts";

/** What the services say in one round: escrow held, orders before and after escrow was read, orders in motion. */
interface Round {
  readonly held: bigint;
  readonly before: bigint;
  readonly after?: bigint;
  readonly motion?: number;
}

/** Services that say these rounds one after the other, the last one for ever. */
function keepers(rounds: readonly Round[], own: { ledger?: string[]; stock?: string[] } = {}) {
  let looks = 0;
  let answers = 0;
  const round = () => rounds[Math.min(looks, rounds.length - 1)] as Round;
  const keepers: BookKeepers = {
    payment: {
      checkLedger: async () => create(CheckLedgerResponseSchema, { transfersChecked: 7n, findings: own.ledger ?? [] }),
      getTrialBalance: async () =>
        create(GetTrialBalanceResponseSchema, {
          rows: [
            { kind: LedgerAccountKind.ESCROW, currencyCode: "USD", creditsPostedMinor: round().held + 5n, debitsPostedMinor: 5n },
            { kind: LedgerAccountKind.FEES, currencyCode: "USD", creditsPostedMinor: 99n },
          ],
        }),
    },
    order: {
      getEscrowTotals: async () => {
        const { before, after = before, motion = 0 } = round();
        const amountMinor = answers % 2 === 0 ? before : after;
        looks += answers++ % 2;
        return create(GetEscrowTotalsResponseSchema, {
          totals: [{ currencyCode: "USD", amountMinor }],
          ordersInMotion: motion,
        });
      },
    },
    inventory: {
      checkStock: async () => create(CheckStockResponseSchema, { listingsChecked: 3n, findings: own.stock ?? [] }),
    },
  };
  return { keepers, looks: () => looks };
}

async function escrowOf(rounds: readonly Round[]) {
  const { keepers: asked, looks } = keepers(rounds);
  const escrow = (await checkBooks(asked, () => ({}), 0)).find((check) => check.name === "escrow");
  return { findings: escrow?.findings ?? [], compared: escrow?.recordsChecked, looks: looks() };
}

describe("the check of the books", () => {
  it("tells what ledger and inventory found about themselves", async () => {
    const { keepers: asked } = keepers([{ held: 0n, before: 0n }], { ledger: ["A."], stock: ["B."] });
    const checks = await checkBooks(asked, () => ({}), 0);
    assert.deepEqual(
      checks.map((check) => [check.name, check.recordsChecked, check.findings]),
      [
        ["ledger", 7n, ["A."]],
        ["escrow", 1n, []],
        ["stock", 3n, ["B."]],
      ],
    );
  });

  it("looks once where escrow and orders agree, whatever is in motion", async () => {
    const found = await escrowOf([{ held: 10n, before: 10n, motion: 4 }]);
    assert.deepEqual(found, { findings: [], compared: 1n, looks: 1 });
  });

  it("finds a difference that two quiet looks show", async () => {
    const { findings, looks } = await escrowOf([{ held: 10n, before: 15n }]);
    assert.equal(looks, 2);
    assert.equal(findings.length, 1);
    assert.match(findings[0] ?? "", /10 minor units of USD.*15\.$/);
  });

  it("finds nothing where one quiet look differs and the next one agrees", async () => {
    const found = await escrowOf([
      { held: 10n, before: 15n },
      { held: 15n, before: 15n },
    ]);
    assert.deepEqual(found, { findings: [], compared: 1n, looks: 2 });
  });

  it("does not count a look during which the orders changed as quiet", async () => {
    const found = await escrowOf([
      { held: 10n, before: 10n, after: 15n },
      { held: 15n, before: 15n, after: 20n },
      { held: 20n, before: 20n },
    ]);
    assert.deepEqual(found, { findings: [], compared: 1n, looks: 3 });
  });

  it("compares nothing, and says so, where the difference changes with the orders in motion", async () => {
    const rounds = [1n, 2n, 3n, 4n, 5n].map((gap) => ({ held: 10n, before: 10n + gap, motion: 2 }));
    assert.deepEqual(await escrowOf(rounds), { findings: [], compared: 0n, looks: 5 });
  });

  it("finds an order that is stuck: the difference stays although orders are in motion", async () => {
    const { findings, compared, looks } = await escrowOf([{ held: 25n, before: 10n, motion: 1 }]);
    assert.deepEqual([compared, looks, findings.length], [1n, 5, 1]);
    assert.match(findings[0] ?? "", /stuck/);
  });
});
