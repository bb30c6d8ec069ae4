// Rows are numbered from 1, and everything else about a row follows from its number: in SQL for the loader, here for the test.

/** What has ids of its own, and the hexadecimal digit of its ids. */
const kinds = { account: 1, listing: 2, order: 3, payment: 4, address: 5, event: 6, letter: 7, payout: 8, draft: 9 } as const;

/** What has ids of its own. */
export type Kind = keyof typeof kinds;

/** Orders, and the listings they were placed for: one each. */
export const ORDERS = 100_000;
/** Drafts, beside them. */
export const DRAFTS = 5_000;
/** Accounts, beside the demo ones. */
export const ACCOUNTS = 20_000;

/** The id of a row: shaped as a UUID v7 of the past, and in the order of the numbers as real ones are in the order of time. */
export function idOf(kind: Kind, number: number): string {
  return `0190${kinds[kind]}000-0000-7000-8000-${number.toString(16).padStart(12, "0")}`;
}

/** The same in SQL, of a number in SQL. */
export function idSql(kind: Kind, number: string): string {
  return `concat('0190${kinds[kind]}000-0000-7000-8000-', lower(lpad(hex(${number}), 12, '0')))`;
}

/** How an order of this number stands, by its number modulo 100: 10 % cancelled and their listings on sale again, 71 % completed. */
export const standing = {
  resold: "n % 100 < 10",
  withdrawn: "n % 100 between 10 and 11",
  awaiting: "n % 100 = 12",
  paid: "n % 100 between 13 and 20",
  shipped: "n % 100 between 21 and 28",
  completed: "n % 100 > 28",
} as const;

/** A completed order whose seller took half of it out. */
export const PAID_OUT = `${standing.completed} and floor(n / 100) % 10 = 0`;
