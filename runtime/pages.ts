import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { type DescField, type DescMethod, type Message, toBinary } from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { ExpressionBuilder, ExpressionWrapper, SqlBool } from "kysely";
import { type Clock, systemClock } from "#runtime/clock.ts";
import { fail, PAGE_TOKEN_INVALID } from "#runtime/errors.ts";

const MAX_AGE_MS = 24 * 3600 * 1000;
const MAC_BYTES = 16;
/** The longest token read; longer ones are refused unseen. */
const TOKEN_MAX = 2_048;

/** One value of a place in a list: what a sort column holds in the page's last row. Never null, which is neither before nor after anything. */
export type PageValue = string | number | bigint;

/** Gives out and reads page tokens. */
export interface PageTokens {
  /** A token for the place after the row that holds `position`, for this method and the filters of this request. */
  encode(method: DescMethod, request: Message, position: readonly PageValue[]): string;
  /**
   * The place a request's token names; undefined for an empty token, the first page.
   *
   * @throws ConnectError PAGE_TOKEN_INVALID when it was forged, is a day old, or was given out for another method or other filters.
   */
  decode(method: DescMethod, request: Message & { pageToken: string }): PageValue[] | undefined;
}

/**
 * Page tokens signed with `secret` (at least 32 bytes, the same in every process of the service): opaque, bound to the method and to all fields of the request
 * but `page_size` and `page_token`, and good for a day unless `maxAgeMs` says otherwise.
 */
export function pageTokens(options: { secret: Uint8Array; clock?: Clock; maxAgeMs?: number }): PageTokens {
  const { secret, clock = systemClock, maxAgeMs = MAX_AGE_MS } = options;
  if (secret.length < 32) {
    throw new Error(`the secret of page tokens has ${secret.length} bytes: at least 32.`);
  }
  const mac = (bound: Buffer, body: Buffer) =>
    createHmac("sha256", secret).update(bound).update(body).digest().subarray(0, MAC_BYTES);
  return {
    encode(method, request, position) {
      const values = position.map((value) => (typeof value === "bigint" ? { n: value.toString() } : value));
      const body = Buffer.from(JSON.stringify([clock.now() + maxAgeMs, ...values]));
      return Buffer.concat([mac(boundTo(method, request), body), body]).toString("base64url");
    },
    decode(method, request) {
      if (request.pageToken === "") {
        return undefined;
      }
      const bytes = Buffer.from(request.pageToken.slice(0, TOKEN_MAX), "base64url");
      const given = bytes.subarray(0, MAC_BYTES);
      const body = bytes.subarray(MAC_BYTES);
      const right = mac(boundTo(method, request), body);
      if (given.length !== right.length || !timingSafeEqual(given, right)) {
        return fail(PAGE_TOKEN_INVALID);
      }
      const [expireTime, ...values] = JSON.parse(body.toString()) as [number, ...(string | number | { n: string })[]];
      if (clock.now() >= expireTime) {
        return fail(PAGE_TOKEN_INVALID);
      }
      return values.map((value) => (typeof value === "object" ? BigInt(value.n) : value));
    },
  };
}

/** What a token is good for: the method, and the request without the fields that may differ from page to page. */
function boundTo(method: DescMethod, request: Message): Buffer {
  const input = method.input;
  const filters = reflect(input, structuredCloneMessage(request), false);
  for (const field of input.fields.filter(isPaging)) {
    filters.clear(field);
  }
  return createHash("sha256")
    .update(`${method.parent.typeName}/${method.name}\0`)
    .update(toBinary(input, filters.message))
    .digest();
}

function isPaging(field: DescField): boolean {
  return field.name === "page_size" || field.name === "page_token";
}

/** A copy whose top-level fields can be cleared without touching the request. */
function structuredCloneMessage<M extends Message>(message: M): M {
  return Object.assign(Object.create(Object.getPrototypeOf(message)), message) as M;
}

/** One column of a list's order; it holds no nulls. The last one of an order is unique, so that every row has one place. */
export interface SortColumn<Columns extends string> {
  readonly column: Columns;
  readonly direction: "asc" | "desc";
}

/**
 * The condition of a page: rows after `position` in the order of `columns`. Stable while rows are inserted and deleted, because it names values, not
 * a count. For `.where((eb) => afterPosition(eb, columns, position))` beside an `orderBy` of the same columns.
 */
export function afterPosition<DB, TB extends keyof DB>(
  eb: ExpressionBuilder<DB, TB>,
  columns: readonly SortColumn<string>[],
  position: readonly PageValue[],
): ExpressionWrapper<DB, TB, SqlBool> {
  if (position.length !== columns.length) {
    return fail(PAGE_TOKEN_INVALID);
  }
  // biome-ignore lint/suspicious/noExplicitAny: the columns are checked where the order is declared.
  const any = eb as ExpressionBuilder<any, any>;
  const alternatives = columns.map(({ column, direction }, index) => {
    const equal = columns.slice(0, index).map((before, i) => any(before.column, "=", position[i]));
    return any.and([...equal, any(column, direction === "asc" ? ">" : "<", position[index])]);
  });
  return any.or(alternatives) as unknown as ExpressionWrapper<DB, TB, SqlBool>;
}

/** How many rows a page holds: what was asked for, 0 meaning `standard`, at most `max`. */
export function pageSizeOf(request: { pageSize: number }, bounds: { standard: number; max: number }): number {
  return Math.min(request.pageSize === 0 ? bounds.standard : request.pageSize, bounds.max);
}

/**
 * Cuts a page from rows read with `limit(size + 1)`: the row too many says that there is a next page, and is left out.
 */
export function cutPage<R>(
  rows: readonly R[],
  size: number,
  tokenAfter: (last: R) => string,
): { rows: readonly R[]; nextPageToken: string } {
  if (rows.length <= size) {
    return { rows, nextPageToken: "" };
  }
  const page = rows.slice(0, size);
  return { rows: page, nextPageToken: tokenAfter(page[size - 1] as R) };
}
