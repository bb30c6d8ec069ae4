// A process that runs inventory and buys from it, asked over the channel to its parent.
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import pino from "pino";
import { InventoryService, ReservationState } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { entities } from "../../../services/inventory/entities.ts";
import { migrations } from "../../../services/inventory/migrations/index.ts";
import { inMemory } from "../../support/server.ts";
import { type Variant, variant } from "./variants.ts";

/** Which inventory on which database. */
export interface Place {
  readonly variant: Variant;
  readonly url: string;
}

/** What a contender is asked to do. */
export type Ask =
  /** So many buyers at once, each for one unit. */
  | { readonly kind: "race"; readonly listingId: string; readonly buyers: number }
  | { readonly kind: "end"; readonly reservationId: string; readonly how: "release" | "commit" }
  /** Baskets of 2 to 5 of these listings in any order, so many at once; most are given back or sold at once. */
  | { readonly kind: "shop"; readonly listingIds: readonly string[]; readonly baskets: number; readonly atOnce: number }
  /** Nothing: the database is not needed any more. */
  | { readonly kind: "close" };

/** What became of it. */
export interface Report {
  /** The reservations made, and those that ended with the state that their caller was told. */
  readonly won: readonly string[];
  readonly ended: Readonly<Record<string, string>>;
  /** How often each reason was given. */
  readonly refused: Readonly<Record<string, number>>;
  /** Transactions that this process has run again so far, after a deadlock or a lock time-out. */
  readonly retries: number;
}

const LIFETIME_MS = 3_600_000;
let retries = 0;

/** Hears how often the database ran a transaction again. */
const log = pino(
  { level: "debug" },
  {
    write(line: string) {
      if (line.includes("transaction lost a race")) retries++;
    },
  },
);

const places = new Map<string, Awaited<ReturnType<typeof open>>>();

async function open({ variant: name, url }: Place) {
  const database = await openDatabase({ service: "inventory", url, entities, migrations, clock: systemClock, log });
  const { client } = await inMemory([variant(name, database)]);
  return { database, inventory: client(InventoryService, { service: "order" }) };
}

class Run {
  readonly #inventory: Client<typeof InventoryService>;
  readonly won: string[] = [];
  readonly ended: Record<string, string> = {};
  readonly refused: Record<string, number> = {};

  constructor(inventory: Client<typeof InventoryService>) {
    this.#inventory = inventory;
  }

  /** Buys; undefined when refused. */
  async reserve(lines: readonly { listingId: string; units: number }[]): Promise<string | undefined> {
    const reservationId = newId();
    const expireTime = timestampFromMs(Date.now() + LIFETIME_MS);
    const made = await this.#told(() =>
      this.#inventory.reserve({ requestId: newId(), reservationId, lines: [...lines], expireTime }),
    );
    if (made === undefined) return undefined;
    this.won.push(reservationId);
    return reservationId;
  }

  async end(reservationId: string, how: "release" | "commit"): Promise<void> {
    const request = { requestId: newId(), reservationId };
    const reservation = await this.#told(async () =>
      how === "commit"
        ? (await this.#inventory.commitReservation(request)).reservation
        : (await this.#inventory.releaseReservation(request)).reservation,
    );
    if (reservation !== undefined) this.ended[reservationId] = stateName(reservation.state);
  }

  async #told<T>(call: () => Promise<T>): Promise<T | undefined> {
    try {
      return await call();
    } catch (error) {
      const reason = reasonOf(error) ?? String(error);
      this.refused[reason] = (this.refused[reason] ?? 0) + 1;
      return undefined;
    }
  }
}

function stateName(state: ReservationState): string {
  return Object.entries(ReservationState).find(([, value]) => value === state)?.[0] ?? String(state);
}

async function answer(place: Place, ask: Ask): Promise<Report> {
  const opened = places.get(place.url) ?? (await open(place));
  places.set(place.url, opened);
  const run = new Run(opened.inventory);
  if (ask.kind === "race") {
    const lines = [{ listingId: ask.listingId, units: 1 }];
    await Promise.all(Array.from({ length: ask.buyers }, () => run.reserve(lines)));
  } else if (ask.kind === "end") {
    await run.end(ask.reservationId, ask.how);
  } else if (ask.kind === "close") {
    places.delete(place.url);
    await opened.database.close();
  } else {
    let begun = 0;
    const shopper = async () => {
      while (begun++ < ask.baskets) {
        const reservationId = await run.reserve(basketOf(ask.listingIds));
        const chance = Math.random();
        if (reservationId !== undefined && chance < 0.9) await run.end(reservationId, chance < 0.75 ? "release" : "commit");
      }
    };
    await Promise.all(Array.from({ length: ask.atOnce }, shopper));
  }
  const { won, ended, refused } = run;
  return { won, ended, refused, retries };
}

function basketOf(listingIds: readonly string[]): { listingId: string; units: number }[] {
  const shuffled = listingIds.map((listingId) => ({ listingId, place: Math.random() })).sort((a, b) => a.place - b.place);
  return shuffled.slice(0, 2 + Math.floor(Math.random() * 4)).map(({ listingId }) => ({ listingId, units: 1 }));
}

process.on("message", async ([place, ask]: [Place, Ask]) => process.send?.(await answer(place, ask)));
process.on("disconnect", () => process.exit());
process.send?.("ready");
