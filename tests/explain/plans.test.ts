import assert from "node:assert/strict";
import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import type { Kysely } from "kysely";
import { allowed } from "./allowed.ts";
import { walkHotPaths } from "./hot-paths.ts";
import { idOf, ORDERS } from "./numbered.ts";
import type { Finding } from "./plans.ts";
import { openShop, type Shop } from "./shop.ts";

describe("The queries over 100,000 listings and 100,000 orders on MariaDB", function () {
  this.timeout(300_000);
  let shop: Shop;
  before(async () => {
    shop = await openShop();
  });
  after(() => shop?.stop());

  const tables = (service: string) => {
    const module = shop.marketplace.modules.find(({ name }) => name === service);
    // biome-ignore lint/suspicious/noExplicitAny: the statements here are those of somebody who forgot something.
    return module?.database?.sql as unknown as Kysely<any>;
  };

  /** What is found about one statement. */
  async function refusal(service: string, work: (db: ReturnType<typeof tables>) => Promise<unknown>): Promise<readonly string[]> {
    await shop.step("a new query", () => work(tables(service)));
    const { findings } = await shop.findings();
    assert.equal(findings.length, 1, JSON.stringify(findings));
    return findings[0]?.problems ?? [];
  }

  it("find their rows by an index, sort little and read little", async () => {
    await walkHotPaths(shop);
    const { findings, statements, shapes } = await shop.findings();
    assert.ok(shapes > 200, `${statements} statements of ${shapes} shapes were seen`);
    assert.deepEqual(findings.filter((finding) => !isAllowed(finding)).map(described), []);
    const idle = allowed.filter((entry) => !findings.some((finding) => isOf(entry, finding)));
    assert.deepEqual(
      idle.map(({ shape }) => String(shape)),
      [],
      "what is allowed and does not happen",
    );
  });

  it("are those of every method that there is", () => {
    const implemented = new Set<string>();
    const router = {
      service(service: DescService, implementation: object) {
        for (const { localName, name } of service.methods)
          if (localName in implementation) implemented.add(`${service.typeName}/${name}`);
        return router;
      },
    };
    for (const module of shop.marketplace.modules) module.routes(router as unknown as ConnectRouter);
    assert.ok(implemented.size > 50);
    assert.deepEqual(
      [...implemented].filter((method) => !shop.called.has(method)),
      [],
      "methods that hot-paths.ts does not call",
    );
  });

  it("are refused without an index", async () => {
    const problems = await refusal("order", (db) =>
      db.selectFrom("orders").select("order_id").where("tracking_number", "=", "1Z").execute(),
    );
    assert.match(problems.join("\n"), /reads the whole table orders of about \d{5,6} rows/);
    assert.match(problems.join("\n"), new RegExp(`read ${ORDERS / 10}\\d+ rows`));
  });

  it("are refused when a limit stops them only after many rows", async () => {
    const problems = await refusal("catalog", (db) =>
      db.selectFrom("listing").select("title").where("brand", "=", "none").orderBy("listing_id").limit(20).execute(),
    );
    assert.match(problems.join("\n"), /reads the whole (table|index of) listing/);
  });

  it("are refused when they sort without a bound", async () => {
    const problems = await refusal("order", (db) =>
      db.selectFrom("orders").select("order_id").where("state", "=", "PAID").orderBy("update_time").limit(20).execute(),
    );
    assert.match(problems.join("\n"), /sorts about \d{4,5} rows/);
  });

  it("are refused when they change rows that no index finds", async () => {
    const problems = await refusal("payment", (db) =>
      db.updateTable("payout").set({ failure_reason: "" }).where("destination_token", "=", "none").execute(),
    );
    assert.match(problems.join("\n"), /reads the whole (table|index of) payout/);
  });

  it("are refused when they join without an index, by another name of the table too", async () => {
    const problems = await refusal("payment", (db) =>
      db
        .selectFrom("payment as one")
        .innerJoin("payment as other", "other.order_id", "one.order_id")
        .select("other.payment_id")
        .where("one.payment_id", "=", idOf("payment", 40))
        .execute(),
    );
    assert.match(problems.join("\n"), /reads the whole (table|index of) payment of/);
  });

  it("are refused when they count a whole table", async () => {
    const problems = await refusal("inventory", (db) =>
      db
        .selectFrom("stock")
        .select((eb) => eb.fn.countAll().as("listings"))
        .execute(),
    );
    assert.match(problems.join("\n"), /reads the whole index of stock/);
  });
});

function isOf(entry: (typeof allowed)[number], { database, shape }: Finding): boolean {
  return entry.database === database && entry.shape.test(shape);
}

function isAllowed(finding: Finding): boolean {
  return allowed.some((entry) => isOf(entry, finding));
}

function described({ database, shape, steps, problems }: Finding): string {
  return `${database}: ${shape}\n  ${problems.join("; ")}\n  during ${steps.join("; ")}`;
}
