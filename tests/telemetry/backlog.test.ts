import assert from "node:assert/strict";
import { openTelemetry } from "#runtime/telemetry/telemetry.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";

describe("what waits in a database", () => {
  it("is told while the database answers, and is no number, not the last one, once it does not", async () => {
    const telemetry = openTelemetry({ serviceName: "test", ratio: 0, intervalMs: 60_000, log: quietLog });
    const { database } = await memoryDatabase([], []);
    let away = false;
    const sql = new Proxy(database.sql, {
      get: (target, name) => {
        if (away) throw new Error("the database is away");
        const value = Reflect.get(target, name);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    // Looks are kept for some seconds: two watches look at different times.
    const watched = (service: string) => telemetry.watch([{ ...database, service, clock: database.clock, sql } as typeof database]);
    try {
      watched("before");
      const before = await telemetry.metrics();
      assert.match(before, /^souk_outbox_rows\{souk_service="before"\} 0$/m);
      assert.match(before, /^souk_database_reachable\{souk_service="before"\} 1$/m);
      away = true;
      watched("after");
      const after = await telemetry.metrics();
      assert.match(after, /^souk_database_reachable\{souk_service="after"\} 0$/m);
      for (const name of ["outbox_rows", "outbox_age_seconds", "jobs_due", "jobs_age_seconds", "dead_letters"]) {
        assert.match(after, new RegExp(`^souk_${name}\\{souk_service="after"\\} NaN$`, "m"));
      }
    } finally {
      away = false;
      await telemetry.stop();
      await database.close();
    }
  });
});
