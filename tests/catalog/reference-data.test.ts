import assert from "node:assert/strict";
import { brands } from "../../services/catalog/data/brands.ts";
import { type CategoryData, categories } from "../../services/catalog/data/categories.ts";
import { accounts, listings } from "../../tools/seed/listings.ts";

const SLUG = /^[a-z0-9-]{2,64}$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const byId = new Map(categories.map((category) => [category.categoryId, category]));
const parents = new Set(categories.map((category) => category.parentId));

/** The ids from a node up to its root; ends at the eighth, so that a cycle shows as a path that is too long. */
function pathOf(category: CategoryData): string[] {
  const path = [category.categoryId];
  for (let at: CategoryData | undefined = category; at && at.parentId !== "" && path.length < 8; at = byId.get(at.parentId)) {
    path.push(at.parentId);
  }
  return path;
}

function rootOf(categoryId: string): string | undefined {
  const category = byId.get(categoryId);
  return category && pathOf(category).at(-1);
}

describe("the category tree", () => {
  it("has from 260 to 2,000 nodes, each with its own slug and a name", () => {
    assert.ok(categories.length >= 260 && categories.length <= 2000, `${categories.length} nodes`);
    assert.equal(byId.size, categories.length);
    for (const { categoryId, name } of categories) {
      assert.match(categoryId, SLUG);
      assert.ok(name.trim() === name && name.length >= 1 && name.length <= 80, `the name of ${categoryId}`);
    }
  });

  it("names every parent before its children", () => {
    const seen = new Set([""]);
    for (const { categoryId, parentId } of categories) {
      assert.ok(seen.has(parentId), `${categoryId} comes before its parent ${parentId}`);
      seen.add(categoryId);
    }
  });

  it("has no cycle and every leaf on the third level", () => {
    for (const category of categories) {
      const depth = pathOf(category).length;
      assert.ok(depth <= 3, `${category.categoryId} stands on level ${depth}`);
      assert.equal(parents.has(category.categoryId), depth < 3, `${category.categoryId} on level ${depth}`);
    }
  });
});

describe("the brands", () => {
  it("are at least 200, at most 60 characters long and unique whatever their case", () => {
    assert.ok(brands.length >= 200, `${brands.length} brands`);
    assert.equal(new Set(brands.map((brand) => brand.toLowerCase())).size, brands.length);
    for (const brand of brands) assert.ok(brand.trim() === brand && brand.length >= 1 && brand.length <= 60, brand);
  });

  it("stand in the order of their names", () => {
    const collator = new Intl.Collator("en", { ignorePunctuation: true });
    assert.deepEqual(brands, brands.toSorted(collator.compare));
  });
});

describe("the demo accounts", () => {
  it("are six sellers, two buyers and one operator with ids of their own", () => {
    const count = (role: string) => accounts.filter((account) => account.role === role).length;
    assert.deepEqual([count("seller"), count("buyer"), count("operator")], [6, 2, 1]);
    assert.equal(new Set(accounts.map((account) => account.accountId)).size, accounts.length);
    assert.equal(new Set(accounts.map((account) => account.name)).size, accounts.length);
    for (const account of accounts) {
      assert.match(account.accountId, UUID);
      assert.equal(account.operator, account.role === "operator");
      assert.ok(account.address.lines.length >= 1 && account.address.lines.length <= 3);
    }
  });

  it("give every seller, and nobody else, a payout destination", () => {
    for (const { name, role, destinationToken } of accounts) {
      assert.equal(destinationToken, role === "seller" ? `bank_demo_${name}` : undefined);
    }
  });
});

describe("the demo listings", () => {
  it("are at least 230, each of a seller that exists, in a leaf, of a known brand or none", () => {
    assert.ok(listings.length >= 230, `${listings.length} listings`);
    const sellers = new Set(accounts.filter((account) => account.role === "seller").map((account) => account.name));
    const known = new Set(["", ...brands]);
    for (const { seller, title, categoryId, brand } of listings) {
      assert.ok(sellers.has(seller), `${title}: ${seller}`);
      assert.ok(byId.has(categoryId) && !parents.has(categoryId), `${title}: ${categoryId} is no leaf`);
      assert.ok(known.has(brand), `${title}: the brand ${brand} is not known`);
    }
  });

  it("have a price, units and texts within the limits of the contract", () => {
    for (const { title, description, priceMinor, units } of listings) {
      assert.ok(Number.isSafeInteger(priceMinor) && priceMinor >= 1 && priceMinor <= 100_000_000, `${title}: ${priceMinor}`);
      assert.ok(Number.isSafeInteger(units) && units >= 1 && units <= 20, `${title}: ${units}`);
      assert.ok(title.length >= 1 && title.length <= 160, title);
      assert.ok(description.length >= 1 && description.length <= 5000, title);
    }
  });

  it("are told apart by their titles and reach every root of the tree, every condition and both currencies", () => {
    assert.equal(new Set(listings.map((listing) => listing.title)).size, listings.length);
    const roots = categories.filter((category) => category.parentId === "").map((category) => category.categoryId);
    assert.deepEqual(new Set(listings.map((listing) => rootOf(listing.categoryId))), new Set(roots));
    assert.equal(new Set(listings.map((listing) => listing.condition)).size, 6);
    assert.deepEqual(new Set(listings.map((listing) => listing.currency)), new Set(["USD", "JPY"]));
  });

  it("carry the currency that their seller is paid in", () => {
    for (const { title, seller, currency } of listings) {
      assert.equal(accounts.find((account) => account.name === seller)?.currency, currency, title);
    }
  });
});
