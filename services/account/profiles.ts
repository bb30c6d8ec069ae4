import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Kysely } from "kysely";
import type { ProfileSchema, UpdateProfileRequest } from "#gen/marketplace/account/v1/account_pb.ts";
import { ProfileUpdatedSchema } from "#gen/marketplace/account/v1/events_pb.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { ETAG_MISMATCH, fail } from "#runtime/errors.ts";
import type { AccountTables, AccountTransaction } from "./entities.ts";
import { DISPLAY_NAME_TAKEN } from "./errors.ts";
import { keyOfName } from "./names.ts";

type ProfileMessage = MessageInitShape<typeof ProfileSchema>;

/** The profiles of these accounts that have one, in no order: both tables by their primary keys. */
export async function loadProfiles(sql: Kysely<AccountTables>, accountIds: readonly string[]): Promise<ProfileMessage[]> {
  const rows = await sql
    .selectFrom("profile as p")
    .leftJoin("seller_totals as t", "t.account_id", "p.account_id")
    .select(["p.account_id", "p.display_name", "p.bio", "p.create_time", "p.version", "t.completed_sales"])
    .select(["t.one_star", "t.two_stars", "t.three_stars", "t.four_stars", "t.five_stars"])
    .where("p.account_id", "in", accountIds)
    .execute();
  return rows.map((row) => ({
    accountId: row.account_id,
    displayName: row.display_name,
    bio: row.bio,
    ratingTotals: {
      oneStar: row.one_star ?? 0,
      twoStars: row.two_stars ?? 0,
      threeStars: row.three_stars ?? 0,
      fourStars: row.four_stars ?? 0,
      fiveStars: row.five_stars ?? 0,
    },
    completedSales: row.completed_sales ?? 0,
    createTime: timestampFromMs(row.create_time),
    etag: String(row.version),
  }));
}

/**
 * Creates the account's profile, or changes the one whose etag was read. The unique keys decide: of two first profiles of an account, and of two
 * accounts that want one name.
 */
export async function updateProfile(
  tx: AccountTransaction,
  accountId: string,
  request: UpdateProfileRequest,
): Promise<ProfileMessage> {
  const contents = { display_name: request.displayName, name_key: keyOfName(request.displayName), bio: request.bio };
  try {
    if (!(await written(tx, accountId, contents, request.etag))) {
      return mismatch(tx, accountId);
    }
  } catch (error) {
    if (!isUniqueViolation(error)) {
      throw error;
    }
    const [own] = request.etag === "" ? await loadProfiles(tx.sql, [accountId]) : [];
    return own === undefined ? fail(DISPLAY_NAME_TAKEN) : mismatch(tx, accountId);
  }
  const [profile] = (await loadProfiles(tx.sql, [accountId])) as [ProfileMessage];
  tx.append({ aggregateType: "account", aggregateId: accountId, schema: ProfileUpdatedSchema, message: { profile } });
  return profile;
}

/** Whether the profile was there as its etag says, and is written. */
async function written(
  tx: AccountTransaction,
  accountId: string,
  contents: { display_name: string; name_key: string; bio: string },
  etag: string,
): Promise<boolean> {
  if (etag === "") {
    const row = { account_id: accountId, ...contents, create_time: tx.now, version: 1 };
    await tx.sql.insertInto("profile").values(row).execute();
    return true;
  }
  const result = await tx.sql
    .updateTable("profile")
    .set((eb) => ({ ...contents, version: eb("version", "+", 1) }))
    .where("account_id", "=", accountId)
    .where("version", "=", Number(etag))
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}

async function mismatch(tx: AccountTransaction, accountId: string): Promise<never> {
  const [profile] = await loadProfiles(tx.sql, [accountId]);
  return fail(ETAG_MISMATCH, { metadata: { account_id: accountId, etag: profile?.etag ?? "" } });
}
