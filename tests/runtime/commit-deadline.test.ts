import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { sql } from "kysely";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { reasonOf } from "#runtime/errors.ts";
import { quietLog } from "../support/database.ts";
import { emptyDatabase } from "../support/mariadb.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

/** A way to a server whose answers can be made late. */
async function slowWay(port: number) {
  const sockets: Socket[] = [];
  const way = { lateMs: 0 };
  const server = createServer((client) => {
    const upstream = connect(port, "127.0.0.1");
    sockets.push(client, upstream);
    client.pipe(upstream);
    upstream.on("data", (bytes) => setTimeout(() => client.write(bytes), way.lateMs));
    for (const [one, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    way,
    port: (server.address() as AddressInfo).port,
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

describe("a commit on MariaDB that outlasts its deadline", () => {
  it("is heard out, so that what it began is gone on with; a statement before it is not", async () => {
    const place = await emptyDatabase("pots");
    const url = new URL(place.url);
    const { way, port, close } = await slowWay(Number(url.port));
    url.port = String(port);
    const options = { service: "pots", entities: [Pot], migrations: potMigrations, clock: systemClock, log: quietLog } as const;
    const database = await openDatabase({ ...options, url: url.href });
    try {
      await database.transaction((tx) => tx.sql.insertInto("pot").values(pot("first")).execute());
      const late = (id: string, lateBefore: boolean) =>
        database.transaction(
          async (tx) => {
            if (lateBefore) way.lateMs = 1_500;
            await tx.sql.insertInto("pot").values(pot(id)).execute();
            way.lateMs = 1_500;
            return id;
          },
          { deadline: Date.now() + 1_000 },
        );
      assert.equal(await late("committed", false), "committed");
      way.lateMs = 0;
      await assert.rejects(late("given up", true), (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
      way.lateMs = 0;
      assert.equal((await database.sql.selectFrom("pot").select("pot_id").execute()).length, 2);
    } finally {
      await database.close();
      await close();
      await place.remove();
    }
  });

  it("is not sent when what goes with it in one packet took longer than there was time", async () => {
    const place = await emptyDatabase("pots");
    const options = { service: "pots", entities: [Pot], migrations: potMigrations, clock: systemClock, log: quietLog } as const;
    const database = await openDatabase({ ...options, url: place.url });
    try {
      const slow = (seconds: number, deadline: number) =>
        database.transaction(
          async (tx) => {
            await tx.later(tx.sql.insertInto("pot").values(pot(`for ${seconds} s`)));
            await tx.later(sql`select sleep(${seconds})`.compile(tx.sql));
            await tx.later(tx.sql.updateTable("pot").set({ title: "last" }));
          },
          { deadline },
        );
      await slow(0.1, Date.now() + 4_500);
      await assert.rejects(slow(4.8, Date.now() + 4_500), (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
      assert.deepEqual(await database.sql.selectFrom("pot").select(["pot_id", "title"]).execute(), [
        { pot_id: "for 0.1 s", title: "last" },
      ]);
    } finally {
      await database.close();
      await place.remove();
    }
  });
});
