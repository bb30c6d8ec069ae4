import { setTimeout as sleep } from "node:timers/promises";
import type { CallOptions, Client } from "@connectrpc/connect";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { LedgerAccountKind, type PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";

/** Whom the books are asked of. */
export interface BookKeepers {
  readonly payment: Pick<Client<typeof PaymentService>, "checkLedger" | "getTrialBalance">;
  readonly order: Pick<Client<typeof OrderService>, "getEscrowTotals">;
  readonly inventory: Pick<Client<typeof InventoryService>, "checkStock">;
}

/** One check and what it found: a sentence for each thing that does not agree. */
export interface BookCheck {
  readonly name: "ledger" | "escrow" | "stock";
  readonly recordsChecked: bigint;
  readonly findings: string[];
}

/** How often escrow and orders are read at most while they differ. */
const ROUNDS = 5;
const PAUSE_MS = 200;
/** In how many rounds without an order in motion a difference must be the same. */
const QUIET_ROUNDS = 2;

/** Checks the books across services. `options` gives the options of each call, `pauseMs` is waited between two looks at a difference. */
export async function checkBooks(keepers: BookKeepers, options: () => CallOptions, pauseMs = PAUSE_MS): Promise<BookCheck[]> {
  const [ledger, escrow, stock] = await Promise.all([
    keepers.payment.checkLedger({}, options()),
    checkEscrow(keepers, options, pauseMs),
    keepers.inventory.checkStock({}, options()),
  ]);
  return [
    { name: "ledger", recordsChecked: ledger.transfersChecked, findings: ledger.findings },
    escrow,
    { name: "stock", recordsChecked: stock.listingsChecked, findings: stock.findings },
  ];
}

/** Escrow and orders of one currency as one round saw them. */
interface Look {
  readonly heldMinor: bigint;
  readonly owedMinor: bigint;
  /** No order was in motion before or after escrow was read, and what is owed did not change meanwhile. */
  readonly quiet: boolean;
  readonly ordersInMotion: number;
}

/**
 * Compares, for each currency, what the ledger holds in escrow (posted credits less posted debits) with the sum of the orders that are paid and neither released nor
 * refunded. The two are read from two services at two moments, so a difference alone proves nothing. It is a finding when two quiet rounds show the same one,
 * or when all rounds do although orders are in motion: then one of these is stuck. A difference that changes from round to round is purchases under way; its currency
 * was not compared, and is not counted in `recordsChecked`.
 */
async function checkEscrow({ payment, order }: BookKeepers, options: () => CallOptions, pauseMs: number): Promise<BookCheck> {
  const looks = new Map<string, Look[]>();
  const open = new Set<string>();
  for (let round = 1; round <= ROUNDS; round++) {
    if (round > 1) {
      await sleep(pauseMs, undefined, { signal: options().signal });
    }
    for (const [currency, look] of await lookOnce(payment, order, options)) {
      const seen = looks.get(currency) ?? [];
      looks.set(currency, [...seen, look]);
      if (look.heldMinor === look.owedMinor || isProven(looks.get(currency) ?? [])) {
        open.delete(currency);
      } else {
        open.add(currency);
      }
    }
    if (open.size === 0) {
      break;
    }
  }
  const settled = [...looks].filter(([currency]) => !open.has(currency));
  const findings = settled.flatMap(([currency, seen]) => findingOf(currency, seen[seen.length - 1] as Look));
  return { name: "escrow", recordsChecked: BigInt(settled.length), findings };
}

async function lookOnce(payment: BookKeepers["payment"], order: BookKeepers["order"], options: () => CallOptions) {
  const before = await order.getEscrowTotals({}, options());
  const { rows } = await payment.getTrialBalance({}, options());
  const after = await order.getEscrowTotals({}, options());
  const ordersInMotion = Math.max(before.ordersInMotion, after.ordersInMotion);
  const held = new Map(
    rows
      .filter((row) => row.kind === LedgerAccountKind.ESCROW)
      .map((row) => [row.currencyCode, row.creditsPostedMinor - row.debitsPostedMinor]),
  );
  const owedBefore = new Map(before.totals.map((total) => [total.currencyCode, total.amountMinor]));
  const owed = new Map(after.totals.map((total) => [total.currencyCode, total.amountMinor]));
  const looks = new Map<string, Look>();
  for (const currency of [...new Set([...held.keys(), ...owedBefore.keys(), ...owed.keys()])].sort()) {
    const owedMinor = owed.get(currency) ?? 0n;
    const quiet = ordersInMotion === 0 && owedMinor === (owedBefore.get(currency) ?? 0n);
    looks.set(currency, { heldMinor: held.get(currency) ?? 0n, owedMinor, quiet, ordersInMotion });
  }
  return looks;
}

/** Whether the looks at one currency, which all differ or did before, show a difference that no purchase under way explains. */
function isProven(looks: readonly Look[]): boolean {
  const gap = (look: Look) => look.heldMinor - look.owedMinor;
  const latest = looks[looks.length - 1] as Look;
  const same = looks.filter((look) => gap(look) === gap(latest));
  return same.filter((look) => look.quiet).length >= QUIET_ROUNDS || same.length === ROUNDS;
}

function findingOf(currency: string, { heldMinor, owedMinor, quiet, ordersInMotion }: Look): string[] {
  if (heldMinor === owedMinor) {
    return [];
  }
  const moving = quiet ? "" : ` The difference stays while ${ordersInMotion} orders are in motion: one of them may be stuck.`;
  return [`Escrow holds ${heldMinor} minor units of ${currency}; paid and unreleased orders come to ${owedMinor}.${moving}`];
}
