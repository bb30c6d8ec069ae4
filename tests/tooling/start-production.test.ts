import assert from "node:assert/strict";
import { once } from "node:events";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { accounts } from "../../tools/seed/listings.ts";
import { temporaryFolder } from "../support/database.ts";
import { type StartedMarketplace, startMarketplace } from "../support/process.ts";

/** The ids of the first page of a demo seller's listings, as catalog's tables have them. */
async function listed({ url }: StartedMarketplace): Promise<string[]> {
  const catalog = createClient(CatalogService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
  const sellerId = accounts.find(({ role }) => role === "seller")?.accountId ?? "";
  const { listings } = await catalog.listSellerListings({ sellerId });
  return listings.map(({ listingId }) => listingId);
}

describe("npm start -- --stores=production", function () {
  this.timeout(60_000);

  it("keeps its tables in a MariaDB and its events in a Redis of its own, over a kill -9, and ends both", async () => {
    const folder = temporaryFolder();
    const started: StartedMarketplace[] = [];
    const start = async () => {
      const marketplace = await startMarketplace(["--stores=production", "--port=0", `--data-dir=${folder.path}`]);
      started.push(marketplace);
      return marketplace;
    };
    try {
      const first = await start();
      const before = await listed(first);
      assert.ok(before.length > 0);
      first.child.kill("SIGKILL");
      await once(first.child, "exit");
      const second = await start();
      assert.deepEqual(await listed(second), before);
      assert.ok(!second.output().includes("Put in"), "what is there is not put in again");
      assert.equal(await second.stop(), 0);
    } finally {
      for (const { child } of started) child.kill("SIGKILL");
      folder.remove();
    }
  });
});
