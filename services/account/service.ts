import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { accountOf, callOf } from "#runtime/call.ts";
import { fail } from "#runtime/errors.ts";
import type { PageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { createAddress, deleteAddress, listAddresses, loadAddress } from "./addresses.ts";
import { loadDestination, setDestination } from "./destinations.ts";
import type { AccountDatabase } from "./entities.ts";
import { ACCOUNT_NOT_FOUND } from "./errors.ts";
import { loadProfiles, updateProfile } from "./profiles.ts";
import { listRatings, orderConsumer } from "./ratings.ts";

/** What the account service is made of. */
export interface AccountDependencies {
  readonly database: AccountDatabase;
  readonly pages: PageTokens;
}

/** Accounts: profiles, addresses, payout destinations, ratings. */
export function account({ database, pages }: AccountDependencies): ServiceModule {
  return {
    name: "account",
    database,
    consumers: [orderConsumer(database)],
    jobs: [],
    recurring: [],
    routes(router) {
      router.service(AccountService, {
        async getProfile(request, context) {
          const accountId = request.accountId || accountOf(callOf(context));
          const [profile] = await loadProfiles(database.sql, [accountId]);
          return profile === undefined ? fail(ACCOUNT_NOT_FOUND, { metadata: { account_id: accountId } }) : { profile };
        },

        async batchGetProfiles({ accountIds }) {
          const found = await loadProfiles(database.sql, accountIds);
          const byId = new Map(found.map((profile) => [profile.accountId, profile]));
          return { profiles: accountIds.map((id) => byId.get(id)).filter((profile) => profile !== undefined) };
        },

        updateProfile(request, context) {
          const accountId = accountOf(callOf(context));
          return database.command(request, context, async (tx) => ({ profile: await updateProfile(tx, accountId, request) }));
        },

        listRatings: listRatings(database, pages),
        listAddresses: listAddresses(database, pages),

        async getAddress({ addressId }, context) {
          return { address: await loadAddress(database, accountOf(callOf(context)), addressId) };
        },

        createAddress(request, context) {
          const accountId = accountOf(callOf(context));
          return database.command(request, context, async (tx) => ({ address: await createAddress(tx, accountId, request) }));
        },

        deleteAddress(request, context) {
          const accountId = accountOf(callOf(context));
          return database.command(request, context, async (tx) => {
            await deleteAddress(tx, accountId, request.addressId);
            return {};
          });
        },

        setPayoutDestination(request, context) {
          const accountId = accountOf(callOf(context));
          return database.command(request, context, async (tx) => ({
            payoutDestination: await setDestination(tx, accountId, request),
          }));
        },

        async getPayoutDestination({ currencyCode }, context) {
          return { payoutDestination: await loadDestination(database, accountOf(callOf(context)), currencyCode) };
        },
      });
    },
  };
}
