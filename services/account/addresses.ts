import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import type {
  AddressSchema,
  CreateAddressRequest,
  ListAddressesRequest,
  ListAddressesResponseSchema,
} from "#gen/marketplace/account/v1/account_pb.ts";
import { accountOf, callOf } from "#runtime/call.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { fail, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { afterPosition, cutPage, type PageTokens, pageSizeOf, type SortColumn } from "#runtime/pages.ts";
import type { AccountDatabase, AccountTransaction, AddressRow } from "./entities.ts";
import { ADDRESS_NOT_FOUND, TOO_MANY_ADDRESSES } from "./errors.ts";

/** Addresses of one account at most. */
export const ADDRESSES_MAX = 20;
/** How often a free slot is looked for: who has lost every slot to others looks once more and finds none. */
const ATTEMPTS_MAX = ADDRESSES_MAX + 1;
const PAGE = { standard: 20, max: 100 };
const OLDEST_FIRST: readonly SortColumn<"create_time" | "address_id">[] = [
  { column: "create_time", direction: "asc" },
  { column: "address_id", direction: "asc" },
];

/** One address of an account, by the primary key; another account's is not found. */
export async function loadAddress(database: AccountDatabase, accountId: string, addressId: string) {
  const row = await database.sql
    .selectFrom("address")
    .selectAll()
    .where("address_id", "=", addressId)
    .where("account_id", "=", accountId)
    .executeTakeFirst();
  return row === undefined ? fail(ADDRESS_NOT_FOUND, { metadata: { address_id: addressId } }) : toAddress(row);
}

/** Serves ListAddresses, by the index address_account. */
export function listAddresses(database: AccountDatabase, pages: PageTokens) {
  return async (
    request: ListAddressesRequest,
    context: HandlerContext,
  ): Promise<MessageInitShape<typeof ListAddressesResponseSchema>> => {
    const accountId = accountOf(callOf(context));
    const size = pageSizeOf(request, PAGE);
    const after = pages.decode(context.method, request);
    const found = await database.sql
      .selectFrom("address")
      .selectAll()
      .where("account_id", "=", accountId)
      .$if(after !== undefined, (query) => query.where((eb) => afterPosition(eb, OLDEST_FIRST, after ?? [])))
      .orderBy("create_time")
      .orderBy("address_id")
      .limit(size + 1)
      .execute();
    const { rows, nextPageToken } = cutPage(found, size, (last) =>
      pages.encode(context.method, request, [last.create_time, last.address_id]),
    );
    return { addresses: rows.map(toAddress), nextPageToken };
  };
}

/** Adds an address in a free slot; the slots' unique key refuses one too many, however many come at once. */
export async function createAddress(tx: AccountTransaction, accountId: string, request: CreateAddressRequest) {
  const row: AddressRow = {
    address_id: newId(),
    account_id: accountId,
    slot: 0,
    recipient: request.recipient,
    lines: JSON.stringify(request.lines),
    city: request.city,
    region: request.region,
    postal_code: request.postalCode,
    country_code: request.countryCode,
    create_time: tx.now,
  };
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    row.slot = await freeSlot(tx, accountId);
    try {
      await tx.sql.insertInto("address").values(row).execute();
      return toAddress(row);
    } catch (error) {
      if (!isUniqueViolation(error)) {
        throw error;
      }
    }
  }
  return fail(UNAVAILABLE, { message: "Too many addresses are being added at once. Try again.", retryAfterMs: 100 });
}

/** Removes an account's address. */
export async function deleteAddress(tx: AccountTransaction, accountId: string, addressId: string): Promise<void> {
  const result = await tx.sql
    .deleteFrom("address")
    .where("address_id", "=", addressId)
    .where("account_id", "=", accountId)
    .executeTakeFirst();
  if (result.numDeletedRows !== 1n) {
    fail(ADDRESS_NOT_FOUND, { metadata: { address_id: addressId } });
  }
}

async function freeSlot(tx: AccountTransaction, accountId: string): Promise<number> {
  const rows = await tx.sql.selectFrom("address").select("slot").where("account_id", "=", accountId).execute();
  const taken = new Set(rows.map((row) => row.slot));
  for (let slot = 0; slot < ADDRESSES_MAX; slot++) {
    if (!taken.has(slot)) {
      return slot;
    }
  }
  return fail(TOO_MANY_ADDRESSES, { metadata: { max_addresses: String(ADDRESSES_MAX) } });
}

function toAddress(row: AddressRow): MessageInitShape<typeof AddressSchema> {
  return {
    addressId: row.address_id,
    recipient: row.recipient,
    lines: JSON.parse(row.lines) as string[],
    city: row.city,
    region: row.region,
    postalCode: row.postal_code,
    countryCode: row.country_code,
  };
}
