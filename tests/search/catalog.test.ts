import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { pageTokens } from "#runtime/pages.ts";
import { serviceTokens } from "#runtime/tokens.ts";
import { entities } from "../../services/search/entities.ts";
import { migrations } from "../../services/search/migrations/index.ts";
import { notesIn } from "../../services/search/replica.ts";
import { search } from "../../services/search/service.ts";
import { sqliteIndex } from "../../services/search/sqlite/sqlite-index.ts";
import { draft, openMarketplace } from "../catalog/marketplace.ts";
import { memoryDatabase, quietLog, temporaryFolder } from "../support/database.ts";
import { behind, carriers } from "../support/server.ts";

for (const carrier of carriers)
  describe(`search beside the catalog itself (${carrier})`, () => {
    it("holds the same whether it scanned the catalog or heard its events", async () => {
      const market = await openMarketplace(carrier);
      const { database } = await memoryDatabase(entities, migrations, { service: "search" });
      const folder = temporaryFolder();
      const clients = market.directory.clientsFor(serviceTokens(market.keys, "search"));
      const module = search({
        database,
        clients,
        pages: pageTokens({ secret: market.keys.pageTokens }),
        notes: notesIn(folder.path),
        index: (hooks) => sqliteIndex({ folder: folder.path, log: quietLog, ...hooks }),
      });
      const subject = await behind(carrier, [module]);
      try {
        const seller = market.account(newId());
        const create = (title: string, publish: boolean) =>
          seller.createListing({ requestId: newId(), listing: draft({ title, brand: "Ping" }), publish });
        await create("Scanned putter", true);
        await create("Draft putter", false);
        const gone = await create("Withdrawn putter", true);
        await seller.withdrawListing({
          requestId: newId(),
          listingId: gone.listing?.listingId ?? "",
        });
        await module.start?.();
        await create("Heard putter", true);
        const client = subject.client(SearchService);
        const titles = async () =>
          (await client.searchListings({ query: "putter", filter: { categoryId: "golf-clubs" } })).results
            .map((r) => r.title)
            .sort();
        assert.deepEqual(await titles(), ["Scanned putter"]);
        const rows = await market.database.sql.selectFrom("outbox").select("event").orderBy("position").execute();
        await module.consumers[0]?.handle(rows.map((row) => fromBinary(EventSchema, row.event)));
        assert.deepEqual(await titles(), ["Heard putter", "Scanned putter"]);
      } finally {
        await subject.stop();
        await module.stop?.();
        await database.close();
        await market.close();
        folder.remove();
      }
    });
  });
