import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathWithCurl } from "../support/curl.ts";
import { temporaryFolder } from "../support/database.ts";
import { ROOT, type StartedMarketplace, shell, startMarketplace } from "../support/process.ts";

for (const stores of ["embedded", "production"]) {
  describe(`the README's purchase on ${stores} stores`, function () {
    this.timeout(60_000);
    const folder = temporaryFolder();
    let marketplace: StartedMarketplace;
    let env: NodeJS.ProcessEnv;

    before(async () => {
      const dataDir = join(folder.path, "data");
      marketplace = await startMarketplace(["--port", "0", "--data-dir", dataDir, "--stores", stores]);
      env = { SOUK_URL: marketplace.url, SOUK_DATA_DIR: dataDir, PATH: pathWithCurl(folder.path) };
    });
    after(async () => {
      assert.equal(await marketplace.stop(), 0, "the marketplace drains and ends well");
      folder.remove();
    });

    it("works as printed, line by line: the price less the fee is paid out, the listing is sold, the books are right", async () => {
      const blocks = [...readFileSync(join(ROOT, "README.md"), "utf8").matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1]);
      assert.equal(blocks.length, 5, "the README shows the purchase in five steps");
      const output = await shell(blocks.join("\n"), env);
      const answers = output
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line));
      const [found, shipped, confirmed, balance, payout, listing, books] = answers;
      assert.equal(answers.length, 7, output);
      assert.equal(found.results[0].title, "Bianchi Celeste road bike, 54 cm");
      assert.equal(shipped.order.state, "ORDER_STATE_SHIPPED");
      assert.equal(confirmed.order.state, "ORDER_STATE_COMPLETED");
      assert.deepEqual(balance.balances[0].available, { currencyCode: "USD", amountMinor: "40500" });
      assert.equal(payout.payout.amount.amountMinor, "40500");
      assert.equal(listing.listing.state, "LISTING_STATE_SOLD");
      assert.equal(books.balanced, true, JSON.stringify(books));
      assert.deepEqual(await search(marketplace.url, "bianchi celeste"), [], "a sold listing is gone from search");
    });

    it("is preceded by three lines that npm start prints and that work as they are", async () => {
      const lines = marketplace
        .output()
        .split("\n")
        .filter((line) => line.startsWith("curl "));
      assert.equal(lines.length, 3);
      for (const line of lines) {
        const answer = JSON.parse(await shell(line, env));
        assert.equal(answer.code, undefined, `${line}\n${JSON.stringify(answer)}`);
      }
    });
  });
}

async function search(url: string, query: string): Promise<unknown[]> {
  const response = await fetch(`${url}/marketplace.search.v1.SearchService/SearchListings`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ query, filter: { categoryId: "road-bikes" } }),
  });
  const { results = [] } = (await response.json()) as { results?: { title: string }[] };
  return results.filter((each) => each.title.startsWith("Bianchi Celeste"));
}
