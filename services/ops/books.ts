import { setTimeout as sleep } from "node:timers/promises";
import type { CallOptions, Client } from "@connectrpc/connect";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import type { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import type { Money } from "#gen/marketplace/type/v1/money_pb.ts";

/** Whom the books are asked of. */
export interface BookKeepers {
  readonly payment: Client<typeof PaymentService>;
  readonly order: Client<typeof OrderService>;
  readonly inventory: Client<typeof InventoryService>;
}

/** One check and what it found: a sentence for each thing that does not agree. */
export interface BookCheck {
  readonly name: "ledger" | "escrow" | "stock";
  readonly recordsChecked: bigint;
  readonly findings: string[];
}

/** How often escrow and orders are read again when they differ while orders are in motion. */
const ROUNDS = 5;
const PAUSE_MS = 200;

/** Checks the books across services. `options` gives the options of each call. */
export async function checkBooks(keepers: BookKeepers, options: () => CallOptions): Promise<BookCheck[]> {
  const [ledger, stock] = await Promise.all([
    keepers.payment.checkLedger({}, options()),
    keepers.inventory.checkStock({}, options()),
  ]);
  return [
    { name: "ledger", recordsChecked: ledger.transfersChecked, findings: ledger.findings },
    await checkEscrow(keepers, options),
    { name: "stock", recordsChecked: stock.listingsChecked, findings: stock.findings },
  ];
}

/**
 * Escrow in the ledger equals the orders that are paid and neither released nor refunded. The two are read from two services, one after the
 * other, so they may differ by what happened in between: a difference counts when it is the same with no order in motion, or when every round
 * shows one.
 */
async function checkEscrow({ payment, order }: BookKeepers, options: () => CallOptions): Promise<BookCheck> {
  for (let round = 1; ; round++) {
    const before = await order.getEscrowTotals({}, options());
    const { escrow } = await payment.checkLedger({}, options());
    const after = await order.getEscrowTotals({}, options());
    const findings = differences(escrow, after.totals);
    const quiet =
      before.ordersInMotion === 0 && after.ordersInMotion === 0 && differences(before.totals, after.totals).length === 0;
    if (findings.length === 0 || quiet || round === ROUNDS) {
      const moving = quiet ? "" : ` ${after.ordersInMotion} orders are in motion, which may explain it: check again.`;
      return {
        name: "escrow",
        recordsChecked: BigInt(after.totals.length),
        findings: findings.map((finding) => finding + moving),
      };
    }
    await sleep(PAUSE_MS);
  }
}

function differences(escrow: readonly Money[], orders: readonly Money[]): string[] {
  const of = (all: readonly Money[], currency: string) => all.find((each) => each.currencyCode === currency)?.amountMinor ?? 0n;
  const currencies = new Set([...escrow, ...orders].map((each) => each.currencyCode));
  return [...currencies].sort().flatMap((currency) => {
    const [held, owed] = [of(escrow, currency), of(orders, currency)];
    return held === owed ? [] : [`Escrow holds ${held} minor units of ${currency}; paid and unreleased orders come to ${owed}.`];
  });
}
