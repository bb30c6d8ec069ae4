import type { Database } from "./database.ts";
import { isUniqueViolation } from "./errors.ts";

/** A set of names, each held by one process at a time. */
export interface Leases {
  /** Takes what is free and renews what is held; gives the names held now. Costs a write only when half of the time is over. */
  take(): Promise<ReadonlySet<string>>;
  /** Renews the leases for as long as the work lasts. */
  during<T>(work: () => Promise<T>): Promise<T>;
  /** Gives all back for good, so that another process need not wait for their end. */
  release(): Promise<void>;
}

/** Prepares to hold leases; nothing is taken yet. They expire by the clock of the database, `leaseMs` after each renewal. */
export function holdLeases(database: Database, options: { owner: string; leaseMs: number; names: readonly string[] }): Leases {
  const { owner, leaseMs, names } = options;
  let held: ReadonlySet<string> = new Set();
  let renewTime = 0;
  let released = false;

  async function takeAll(): Promise<ReadonlySet<string>> {
    if (released) {
      return held;
    }
    const now = database.clock.now();
    const until = now + leaseMs;
    held = await database.transaction(
      async (tx) => {
        await tx.sql
          .updateTable("lease")
          .set({ owner, expire_time: until })
          .where("name", "in", [...names])
          .where((eb) => eb.or([eb("owner", "=", owner), eb("expire_time", "<=", now)]))
          .execute();
        const rows = await tx.sql
          .selectFrom("lease")
          .select(["name", "owner"])
          .where("name", "in", [...names])
          .execute();
        const known = new Set(rows.map((row) => row.name));
        const mine = rows.filter((row) => row.owner === owner).map((row) => row.name);
        for (const name of names.filter((candidate) => !known.has(candidate))) {
          try {
            await tx.sql.insertInto("lease").values({ name, owner, expire_time: until }).execute();
            mine.push(name);
          } catch (error) {
            // Another process has just made the row, and holds it.
            if (!isUniqueViolation(error)) {
              throw error;
            }
          }
        }
        return new Set(mine);
      },
      { durable: false },
    );
    renewTime = now + leaseMs / 2;
    return held;
  }

  return {
    take: async () => (held.size === names.length && database.clock.now() < renewTime ? held : takeAll()),
    async during(work) {
      const timer = setInterval(() => {
        takeAll().catch((error: unknown) => database.log.warn({ database: database.service, err: error }, "leases not renewed"));
      }, leaseMs / 3);
      // Work that a stop gave up must not keep the process alive.
      timer.unref();
      try {
        return await work();
      } finally {
        clearInterval(timer);
      }
    },
    async release() {
      released = true;
      held = new Set();
      await database.transaction(
        async (tx) => {
          await tx.sql
            .deleteFrom("lease")
            .where("owner", "=", owner)
            .where("name", "in", [...names])
            .execute();
        },
        { durable: false },
      );
    },
  };
}
