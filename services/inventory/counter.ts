import type { Call } from "#runtime/call.ts";
import { gathered } from "#runtime/database/gathered.ts";
import { DEADLINE_EXCEEDED, fail } from "#runtime/errors.ts";
import { Recent } from "#runtime/recent.ts";
import type { InventoryDatabase, StockRow } from "./entities.ts";
import { LISTING_NOT_FOUND, OUT_OF_STOCK } from "./errors.ts";
import { type Line, loadStock } from "./stock.ts";

/** Too few units are there; undefined: the listing has no stock. */
export interface Lack {
  readonly line: Line;
  readonly availableUnits: number | undefined;
}

/** A buyer's place in a transaction that takes units. */
export interface Place {
  /** To be called when the transaction has ended, whichever way. */
  leave(): void;
  /** To be called before, when it found that the units are gone: others who want them are told by a read. */
  tooLate(): void;
}

/** Where the buyers of one process queue before they begin a transaction. */
export interface Counter {
  /**
   * Lets a buyer begin to take units, or tells what is lacking by what is committed now. To come in promises nothing: only the transaction decides. Who wants what
   * nobody else has wanted of late is let in without a look.
   *
   * @throws ConnectError DEADLINE_EXCEEDED when the call ends while it waits.
   */
  enter(lines: readonly Line[], call: Pick<Call, "signal">): Promise<Place | Lack>;
}

interface Taking {
  /** Units that transactions under way in this process are about to take. */
  units: number;
  /** Resolves when one of them has ended. */
  ended: PromiseWithResolvers<void>;
}

/** How many listings that several wanted are remembered. */
const WANTED_MAX = 10_000;

/**
 * Most who want the last unit come too late, so losing must cost as little as possible: a read that all who ask at that moment share, and no transaction.
 * For each listing no more buyers are let in than it has units. The others wait until one of those has ended and look again; without that, all who
 * come before the first commit would begin a transaction, queue for the row, and undo what they wrote.
 */
export function openCounter(database: InventoryDatabase): Counter {
  const stockOf = gathered<StockRow>({
    read: (listingIds) => loadStock(database.sql, listingIds),
    keyOf: (row) => row.listing_id,
  });
  const takings = new Map<string, Taking>();
  /** Listings that several wanted at once, or somebody too late. */
  const wanted = new Recent<true>(WANTED_MAX);

  function isQuiet({ listingId }: Line): boolean {
    if (takings.has(listingId)) {
      wanted.set(listingId, true);
    }
    return !wanted.has(listingId);
  }

  function come(lines: readonly Line[]): Place {
    for (const { listingId, units } of lines) {
      const taking = takings.get(listingId) ?? { units: 0, ended: Promise.withResolvers() };
      taking.units += units;
      takings.set(listingId, taking);
    }
    const tooLate = () => {
      for (const { listingId } of lines) {
        wanted.set(listingId, true);
      }
    };
    return { leave: () => leave(lines), tooLate };
  }

  function leave(lines: readonly Line[]): void {
    for (const { listingId, units } of lines) {
      const taking = takings.get(listingId) as Taking;
      taking.units -= units;
      taking.ended.resolve();
      if (taking.units === 0) {
        takings.delete(listingId);
      } else {
        taking.ended = Promise.withResolvers();
      }
    }
  }

  return {
    async enter(lines, { signal }) {
      if (lines.every(isQuiet)) {
        return come(lines);
      }
      for (;;) {
        const rows = await Promise.all(lines.map((line) => stockOf(line.listingId)));
        const available = (index: number) => rows[index]?.available_units;
        const lacking = lines.findIndex((line, index) => (available(index) ?? 0) < line.units);
        if (lacking !== -1) {
          return { line: lines[lacking] as Line, availableUnits: available(lacking) };
        }
        const full = lines.findIndex(
          (line, index) => (available(index) ?? 0) - (takings.get(line.listingId)?.units ?? 0) < line.units,
        );
        const taking = takings.get(lines[full]?.listingId ?? "");
        if (taking === undefined) {
          return come(lines);
        }
        await unlessAborted(taking.ended.promise, signal);
      }
    },
  };
}

/** Waits, as long as the call lasts. */
async function unlessAborted(ended: Promise<void>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const giveUp = () => aborted.reject(undefined);
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    if (signal.aborted) {
      giveUp();
    }
    await Promise.race([ended, aborted.promise]);
  } catch {
    fail(DEADLINE_EXCEEDED);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

/** Refuses who wants more units than there are. */
export function failLacking({ line, availableUnits }: Lack): never {
  if (availableUnits === undefined) {
    fail(LISTING_NOT_FOUND, { metadata: { listing_id: line.listingId } });
  }
  fail(OUT_OF_STOCK, { metadata: { listing_id: line.listingId, available_units: String(availableUnits) } });
}
