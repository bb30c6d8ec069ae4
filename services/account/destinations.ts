import type { MessageInitShape } from "@bufbuild/protobuf";
import type { PayoutDestinationSchema } from "#gen/marketplace/account/v1/account_pb.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { fail } from "#runtime/errors.ts";
import type { AccountDatabase, AccountTransaction } from "./entities.ts";
import { PAYOUT_DESTINATION_MISSING } from "./errors.ts";

/** How much of a token people see. */
const HINT_CHARACTERS = 4;

/** Where an account's payouts in a currency go, by the primary key. */
export async function loadDestination(database: AccountDatabase, accountId: string, currencyCode: string) {
  const row = await database.sql
    .selectFrom("payout_destination")
    .select("destination_token")
    .where("account_id", "=", accountId)
    .where("currency_code", "=", currencyCode)
    .executeTakeFirst();
  return row === undefined
    ? fail(PAYOUT_DESTINATION_MISSING, { metadata: { currency_code: currencyCode } })
    : toDestination(row.destination_token, currencyCode);
}

/** Sets where an account's payouts in a currency go from now on. */
export async function setDestination(
  tx: AccountTransaction,
  accountId: string,
  { currencyCode, destinationToken }: { currencyCode: string; destinationToken: string },
) {
  const change = { destination_token: destinationToken, update_time: tx.now };
  const replace = () =>
    tx.sql
      .updateTable("payout_destination")
      .set(change)
      .where("account_id", "=", accountId)
      .where("currency_code", "=", currencyCode)
      .executeTakeFirst();
  if ((await replace()).numUpdatedRows === 0n) {
    try {
      await tx.sql
        .insertInto("payout_destination")
        .values({ account_id: accountId, currency_code: currencyCode, ...change })
        .execute();
    } catch (error) {
      if (!isUniqueViolation(error)) {
        throw error;
      }
      await replace();
    }
  }
  return toDestination(destinationToken, currencyCode);
}

function toDestination(destinationToken: string, currencyCode: string): MessageInitShape<typeof PayoutDestinationSchema> {
  return { destinationToken, hint: destinationToken.slice(-HINT_CHARACTERS), currencyCode };
}
