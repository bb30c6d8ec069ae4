import assert from "node:assert/strict";
import { once } from "node:events";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { temporaryFolder } from "../support/database.ts";
import { type StartedMarketplace, startMarketplace } from "../support/process.ts";

async function found({ url }: StartedMarketplace): Promise<number> {
  const search = createClient(SearchService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
  return (await search.searchListings({ query: "road bike" })).results.length;
}

describe("npm start -- --stores=production", function () {
  this.timeout(60_000);

  it("keeps its tables in a MariaDB of its own, over a kill -9, and ends it", async () => {
    const folder = temporaryFolder();
    const start = () => startMarketplace(["--stores=production", "--port=0", `--data-dir=${folder.path}`]);
    try {
      const first = await start();
      const before = await found(first);
      assert.ok(before > 0);
      first.child.kill("SIGKILL");
      await once(first.child, "exit");
      const second = await start();
      assert.equal(await found(second), before);
      assert.ok(!second.output().includes("Put in"), "what is there is not put in again");
      assert.equal(await second.stop(), 0);
    } finally {
      folder.remove();
    }
  });
});
