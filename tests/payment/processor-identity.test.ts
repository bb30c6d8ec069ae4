import assert from "node:assert/strict";
import { join } from "node:path";
import { systemClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import { entities, type PaymentDatabase } from "../../services/payment/entities.ts";
import { migrations } from "../../services/payment/migrations/index.ts";
import { keepProcessor } from "../../services/payment/processor-identity.ts";
import { openSimulator } from "../../services/payment/simulator.ts";
import { memoryDatabase, temporaryFolder } from "../support/database.ts";

describe("the processor that payments are with", () => {
  let database: PaymentDatabase;
  const folder = temporaryFolder();
  const open = (name: string) =>
    openSimulator({ file: join(folder.path, name), clock: systemClock, baseUrl: () => "http://shop.test" });
  beforeEach(async () => {
    ({ database } = await memoryDatabase(entities, migrations, { service: "payment" }));
  });
  afterEach(() => database.close());
  after(() => folder.remove());

  it("is the one with the books they began with, in any process", async () => {
    const [first, second] = [open("a.db"), open("a.db")];
    assert.equal(first.id, second.id);
    await Promise.all([keepProcessor(database, first.id, { file: "a.db" }), keepProcessor(database, second.id, { file: "a.db" })]);
    const other = open("b.db");
    await assert.rejects(
      keepProcessor(database, other.id, { file: "b.db" }),
      /another simulated processor than the one in b\.db.*SOUK_SIMULATOR_FILE/,
    );
    for (const simulator of [first, second, other]) simulator.close();
  });

  it("does a thing once although two processes ask for it at once", async () => {
    const [first, second] = [open("c.db"), open("c.db")];
    const { signal } = new AbortController();
    const order = { amountMinor: 500n, currencyCode: "USD", paymentMethodToken: "tok_approved" };
    for (let round = 0; round < 20; round++) {
      const [key, captureKey] = [newId(), newId()];
      const both = [first, second];
      await Promise.all(both.map((simulator) => simulator.authorize(key, order, signal)));
      await Promise.all(both.map((simulator) => simulator.capture(captureKey, key, signal)));
    }
    assert.equal((await second.books("USD", signal)).capturedMinor, 20n * 500n);
    for (const simulator of [first, second]) simulator.close();
  });
});
