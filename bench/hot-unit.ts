// `npm run bench -- hot-unit`: how many decisions a second one hot unit gets.
import { readFileSync } from "node:fs";
import { create, type DescMethodUnary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { LockMode } from "@mikro-orm/core";
import { MariaDbDriver } from "@mikro-orm/mariadb";
import { MikroORM } from "@mikro-orm/sql";
import {
  InventoryService,
  ReleaseReservationRequestSchema,
  type ReserveRequest,
  ReserveRequestSchema,
} from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { silentLog } from "#runtime/log.ts";
import { entities, type InventoryDatabase, Stock } from "../services/inventory/entities.ts";
import { migrations } from "../services/inventory/migrations/index.ts";
import { inventory } from "../services/inventory/service.ts";
import { setUnits } from "../services/inventory/stock.ts";
import { callContext } from "../tests/support/call.ts";
import { startMariadb } from "../tools/stores/mariadb.ts";
import { ensureDatabase } from "../tools/stores/stores.ts";
import { median } from "./figures.ts";

/** Who decides about one unit. */
interface Decider {
  readonly name: string;
  /** Decisions of one round. */
  readonly decisions: number;
  /** Makes what the calls of a round need beforehand: the RPC would have made it. */
  prepare?(): void;
  /** Gives what takes the unit back, or undefined to a loser. */
  reserve(index: number): Promise<(() => Promise<unknown>) | undefined>;
  close(): Promise<void>;
}

interface Sample {
  readonly perSecond: number;
  readonly processUs: number;
  readonly databaseUs: number;
  readonly winnersPerSecond: number;
}

/** Buyers at once: so many calls are under way for the one unit at any time. */
const CLIENTS = [16, 64, 512];
const POOL = 10;

/**
 * Compares Reserve and ReleaseReservation, with all that they write (answer, reservation, job, event), without the RPC around them, with the entity read
 * under a lock that they stand for: begin, findOne with PESSIMISTIC_WRITE, decide, flush, commit; it writes nothing but the stock. Whoever wins gives the
 * unit back at once, and every buyer asks again and again. Each release counts as a decision, too. Rounds of the two alternate.
 * The first ratio is of decisions a second, the second of processor time, which others on the machine disturb less.
 */
export async function hotUnit({ rounds }: { rounds: number }): Promise<void> {
  const server = await startMariadb();
  try {
    const url = await ensureDatabase(server.url, { name: "souk_inventory", password: "bench" });
    const ours = await service(`${url}?pool=${POOL}`);
    const locked = await lockedEntity(url, ours.database);
    try {
      console.log(
        `${"".padEnd(40)}${["decisions/s", "ratio", "process CPU", "database CPU", "ratio", "winners/s"].map((each) => each.padStart(14)).join("")}`,
      );
      for (const clients of CLIENTS) {
        const samples = [locked, ours].map((decider) => ({ decider, taken: [] as Sample[] }));
        for (let round = -1; round < rounds; round++) {
          for (const { decider, taken } of samples) {
            const sample = await measure(decider, clients, server.pid);
            if (round >= 0) taken.push(sample);
          }
        }
        report(clients, samples);
      }
    } finally {
      await locked.close();
      await ours.close();
    }
  } finally {
    await server.stop();
  }
}

async function measure({ decisions, prepare, reserve }: Decider, clients: number, serverPid: number): Promise<Sample> {
  prepare?.();
  let begun = 0;
  let releases = 0;
  const buyer = async () => {
    while (begun < decisions) {
      const release = await reserve(begun++);
      if (release !== undefined) {
        releases++;
        await release();
      }
    }
  };
  const before = { cpu: process.cpuUsage(), database: cpuUsOf(serverPid), time: performance.now() };
  await Promise.all(Array.from({ length: clients }, buyer));
  const seconds = (performance.now() - before.time) / 1000;
  const { user, system } = process.cpuUsage(before.cpu);
  const all = begun + releases;
  return {
    perSecond: all / seconds,
    processUs: (user + system) / all,
    databaseUs: (cpuUsOf(serverPid) - before.database) / all,
    winnersPerSecond: releases / seconds,
  };
}

/** What a process has used of the processors, in microseconds; NaN where the system does not say. */
function cpuUsOf(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /, "")
      .split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10_000;
  } catch {
    return Number.NaN;
  }
}

function report(clients: number, samples: readonly { decider: Decider; taken: readonly Sample[] }[]): void {
  const base = samples[0]?.taken ?? [];
  for (const { decider, taken } of samples) {
    const cells = [
      median(taken.map((each) => each.perSecond)).toFixed(0),
      `${median(taken.map((each, round) => each.perSecond / (base[round]?.perSecond ?? 1))).toFixed(1)} ×`,
      `${median(taken.map((each) => each.processUs)).toFixed(0)} µs`,
      `${median(taken.map((each) => each.databaseUs)).toFixed(0)} µs`,
      `${median(taken.map((each, round) => cpuUsOfBoth(base[round]) / cpuUsOfBoth(each))).toFixed(1)} ×`,
      median(taken.map((each) => each.winnersPerSecond)).toFixed(0),
    ];
    console.log(`${decider.name}, ${clients} buyers`.padEnd(40) + cells.map((cell) => cell.padStart(14)).join(""));
  }
}

/** Processor time of a decision, here and in the database. */
function cpuUsOfBoth(sample: Sample | undefined): number {
  return sample === undefined ? Number.NaN : sample.processUs + (Number.isNaN(sample.databaseUs) ? 0 : sample.databaseUs);
}

const { reserve, releaseReservation } = InventoryService.method;

async function service(url: string): Promise<Decider & { database: InventoryDatabase }> {
  const log = silentLog();
  const database = await openDatabase({ service: "inventory", url, entities, migrations, clock: systemClock, log });
  const handlers = handlersOf(database);
  const listingId = newId();
  await database.transaction((tx) => setUnits(tx, [{ listingId, units: 1 }], { sellerId: newId(), mayCreate: true }));
  const contextOf = (method: DescMethodUnary) =>
    callContext(method, { caller: { kind: "service", service: "order" }, timeoutMs: 60_000 });
  const decisions = 20_000;
  let [reserving, releasing] = [contextOf(reserve), contextOf(releaseReservation)];
  let requests: ReserveRequest[] = [];
  return {
    name: "Reserve, ReleaseReservation",
    database,
    decisions,
    prepare() {
      [reserving, releasing] = [contextOf(reserve), contextOf(releaseReservation)];
      const expireTime = timestampFromMs(Date.now() + 600_000);
      const lines = [{ listingId, units: 1 }];
      requests = Array.from({ length: decisions }, () =>
        create(ReserveRequestSchema, { requestId: newId(), reservationId: newId(), lines, expireTime }),
      );
    },
    async reserve(index) {
      const request = requests[index] as ReserveRequest;
      try {
        await handlers.reserve(request, reserving);
      } catch (error) {
        if (reasonOf(error) === "OUT_OF_STOCK") return undefined;
        throw error;
      }
      const { reservationId } = request;
      const release = create(ReleaseReservationRequestSchema, { requestId: newId(), reservationId });
      return async () => handlers.releaseReservation(release, releasing);
    },
    close: () => database.close(),
  };
}

type Handlers = Pick<ServiceImpl<typeof InventoryService>, "reserve" | "releaseReservation">;

/** The handlers as the router gets them. */
function handlersOf(database: InventoryDatabase): Handlers {
  let handlers: Handlers | undefined;
  const router = {
    service(_service: unknown, implementation: Handlers) {
      handlers = implementation;
    },
  };
  inventory({ database }).routes(router as never);
  return handlers as Handlers;
}

async function lockedEntity(url: string, database: InventoryDatabase): Promise<Decider> {
  const orm = await MikroORM.init({
    driver: MariaDbDriver,
    clientUrl: url.replace(/^mariadb:/, "mysql:"),
    entities: [...entities],
    pool: { min: 0, max: POOL },
    metadataCache: { enabled: false },
  });
  const listingId = newId();
  await database.transaction((tx) => setUnits(tx, [{ listingId, units: 1 }], { sellerId: newId(), mayCreate: true }));
  const change = (by: 1 | -1) =>
    orm.em.fork().transactional(async (em) => {
      const stock = await em.findOneOrFail(Stock, { listingId }, { lockMode: LockMode.PESSIMISTIC_WRITE });
      if (stock.availableUnits + by < 0) return false;
      stock.availableUnits += by;
      stock.reservedUnits -= by;
      return true;
    });
  return {
    name: "entity read with FOR UPDATE",
    decisions: 2_000,
    reserve: async () => ((await change(-1)) ? () => change(1) : undefined),
    close: () => orm.close(true),
  };
}
