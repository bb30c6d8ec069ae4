import type { DescService } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { accounts, type DemoAccount, listings } from "./listings.ts";

/** What was put in. */
export interface Seeded {
  readonly accounts: number;
  readonly listings: number;
}

/**
 * Puts the demo accounts and their listings in, through the public RPCs as anybody would. Safe to repeat: every command has a
 * request_id of its own for good, every listing an external_id.
 *
 * @param as gives a client that calls as this account
 */
export async function seed(as: <S extends DescService>(account: DemoAccount, service: S) => Client<S>): Promise<Seeded> {
  await Promise.all(accounts.map((each) => seedAccount(as(each, AccountService), each)));
  const sellers = accounts.filter((each) => each.role === "seller");
  const counts = await Promise.all(sellers.map((each) => seedListings(as(each, CatalogService), each)));
  return { accounts: accounts.length, listings: counts.reduce((sum, count) => sum + count, 0) };
}

async function seedAccount(client: Client<typeof AccountService>, account: DemoAccount): Promise<void> {
  const { name, displayName, address, currency, destinationToken } = account;
  try {
    await client.updateProfile({ requestId: `seed/${name}/profile`, displayName });
  } catch (error) {
    // The profile is there and has its owner's changes: it stays.
    if (reasonOf(error) !== "ETAG_MISMATCH") throw error;
  }
  await client.createAddress({ ...address, lines: [...address.lines], requestId: `seed/${name}/address` });
  if (destinationToken !== undefined) {
    await client.setPayoutDestination({
      requestId: `seed/${name}/payout-destination`,
      destinationToken,
      currencyCode: currency,
    });
  }
}

async function seedListings(client: Client<typeof CatalogService>, seller: DemoAccount): Promise<number> {
  const own = listings.filter((each) => each.seller === seller.name);
  const { results } = await client.batchCreateListings({
    requestId: `seed/${seller.name}/listings`,
    publish: true,
    listings: own.map((each, index) => ({
      externalId: `${each.seller}-${index + 1}`,
      title: each.title,
      description: each.description,
      categoryId: each.categoryId,
      brand: each.brand,
      condition: Condition[each.condition],
      price: { currencyCode: each.currency, amountMinor: BigInt(each.priceMinor) },
      units: each.units,
    })),
  });
  const refused = results.find((each) => each.reason !== "");
  if (refused !== undefined) throw new Error(`The demo catalogue was refused: ${refused.reason}: ${refused.message}`);
  return results.length;
}
