import assert from "node:assert/strict";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { MaintenanceService, OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { systemClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import { type Server, startServer } from "#runtime/server.ts";
import { embeddedVerifiers, type Keys, temporaryKeys } from "#runtime/tokens.ts";
import { type Marketplace, openMarketplace } from "../../services/marketplace.ts";
import { quietLog } from "../support/database.ts";
import { refused } from "../support/refused.ts";
import { signedIn } from "../support/server.ts";

describe("the operators' door of a whole marketplace", () => {
  let market: Marketplace;
  let server: Server;
  let keys: Keys;
  let operator: Client<typeof OpsService>;

  before(async () => {
    keys = await temporaryKeys();
    const baseUrl = () => server.url;
    market = await openMarketplace({ dataDir: undefined, keys, clock: systemClock, log: quietLog, baseUrl });
    const verifiers = embeddedVerifiers(keys);
    server = await startServer({ modules: market.modules, port: 0, host: "127.0.0.1", verifiers, log: quietLog });
    await market.start();
    operator = createClient(OpsService, transport({ account: newId(), operator: true }));
  });
  after(async () => {
    await server.stop(0);
    await market.stop();
  });

  const transport = (identity: Parameters<typeof signedIn>[1]) =>
    createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", interceptors: [signedIn(keys, identity)] });

  it("finds the books right, and counts what it compared", async () => {
    const seller = createClient(CatalogService, transport({ account: newId() }));
    await seller.createListing({
      requestId: newId(),
      publish: true,
      listing: {
        title: "Seven iron",
        categoryId: "golf-clubs",
        condition: Condition.GOOD,
        price: { currencyCode: "USD", amountMinor: 1250n },
      },
    });
    const { balanced, checks } = await operator.checkBooks({});
    assert.deepEqual(
      checks.map((check) => [check.name, check.findings]),
      [
        ["ledger", []],
        ["escrow", []],
        ["stock", []],
      ],
    );
    assert.ok(balanced);
    assert.equal(checks[2]?.recordsChecked, 1n);
    const { rows } = await operator.getTrialBalance({});
    assert.equal(
      rows.reduce((sum, row) => sum + row.debitsPostedMinor - row.creditsPostedMinor, 0n),
      0n,
    );
    assert.deepEqual((await operator.listOrderTransfers({ orderId: newId() })).transfers, []);
  });

  it("leads to every service that has tables", async () => {
    for (const { name, database } of market.modules) {
      if (database !== undefined) {
        assert.deepEqual((await operator.listDeadLetters({ service: name })).deadLetters, []);
        assert.ok((await operator.listJobs({ service: name })).jobs.length > 0, `${name} forgets what is old`);
      }
    }
  });

  it("is the only one: what services say of themselves is not on the port", async () => {
    const maintenance = createClient(MaintenanceService, transport({ service: "ops" }));
    await refused(maintenance.listOwnDeadLetters({}), "UNIMPLEMENTED");
  });
});
