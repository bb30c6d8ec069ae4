import assert from "node:assert/strict";
import type { Client } from "@connectrpc/connect";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { MaintenanceService, OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { newId } from "#runtime/ids.ts";
import { type TestMarketplace, testMarketplace } from "../support/marketplace.ts";
import { refused } from "../support/refused.ts";
import { onServer, overBothTransports } from "../support/server.ts";

let market: TestMarketplace;

overBothTransports(
  "the operators' door of a whole marketplace",
  async () => {
    market = await testMarketplace({ going: true });
    return market.modules;
  },
  (subject) => {
    let operator: Client<typeof OpsService>;

    before(() => {
      operator = subject().client(OpsService, { account: newId(), operator: true });
    });
    after(() => market.stop());

    it("finds the books right, and counts what it compared", async () => {
      const seller = subject().client(CatalogService, { account: newId() });
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
  },
  ["Connect JSON"],
);

// Over a server alone: in memory there is no port, and no transport to a service that nobody there implements.
describe("the port of a whole marketplace", () => {
  it("does not serve what services say of themselves", async () => {
    const market = await testMarketplace({ going: true });
    const subject = await onServer(market.modules);
    try {
      const maintenance = subject.client(MaintenanceService, { service: "ops" });
      await refused(maintenance.listOwnDeadLetters({}), "UNIMPLEMENTED");
    } finally {
      await subject.stop();
      await market.stop();
    }
  });
});
