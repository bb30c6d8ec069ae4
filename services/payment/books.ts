import { type Kysely, sql } from "kysely";
import type { PaymentDatabase, PaymentTables } from "./entities.ts";
import { type Processor, type ProcessorBooks, ProcessorTimeout, ProcessorUnreachable } from "./processor.ts";
import type { AccountKindName } from "./states.ts";

/** How many findings are reported at most. */
export const FINDINGS_MAX = 100;
const BOOKS_TIMEOUT_MS = 20_000;

/** The sums of all ledger accounts of a kind in one currency, in minor units. */
export interface TrialRow {
  readonly kind: AccountKindName;
  readonly currencyCode: string;
  readonly debitsPendingMinor: bigint;
  readonly debitsPostedMinor: bigint;
  readonly creditsPendingMinor: bigint;
  readonly creditsPostedMinor: bigint;
}

/** What a check of the books found. */
export interface BooksReport {
  readonly transfersChecked: number;
  /** A sentence each; none when the books are right. */
  readonly findings: readonly string[];
  /** What stands in escrow, by currency. */
  readonly escrowMinor: ReadonlyMap<string, bigint>;
}

type Sql = Kysely<PaymentTables>;

/** Sums the ledger accounts by kind and currency, shards together. One statement, so of one moment. */
export async function trialBalance(database: Pick<PaymentDatabase, "sql">): Promise<TrialRow[]> {
  const rows = await database.sql
    .selectFrom("ledger_account")
    .select((eb) => [
      "kind",
      "currency_code",
      eb.fn.sum<bigint>("debits_pending_minor").as("debits_pending_minor"),
      eb.fn.sum<bigint>("debits_posted_minor").as("debits_posted_minor"),
      eb.fn.sum<bigint>("credits_pending_minor").as("credits_pending_minor"),
      eb.fn.sum<bigint>("credits_posted_minor").as("credits_posted_minor"),
    ])
    .groupBy(["kind", "currency_code"])
    .orderBy("currency_code")
    .orderBy("kind")
    .execute();
  return rows.map((row) => ({
    kind: row.kind,
    currencyCode: row.currency_code,
    debitsPendingMinor: row.debits_pending_minor,
    debitsPostedMinor: row.debits_posted_minor,
    creditsPendingMinor: row.credits_pending_minor,
    creditsPostedMinor: row.credits_posted_minor,
  }));
}

/**
 * Checks the books. Each rule about our own tables is one statement, so that it sees one moment even while payments go on. The processor's books are read
 * between two looks at ours: what it captured is at least what we had posted before, and at most what we have posted after plus what is under way then (asked
 * for, answer not recorded); the same for refunds and payouts. While nothing is under way and nothing moves, that is equality.
 */
export async function checkBooks(database: Pick<PaymentDatabase, "sql">, processor: Processor): Promise<BooksReport> {
  const db = database.sql as unknown as Sql;
  const findings: string[] = [
    ...(await accountsAgainstTransfers(db)),
    ...(await uncoveredAccounts(db)),
    ...(await statementsAgainstAccounts(db)),
    ...(await sumsAgainstPayments(db)),
  ];
  for (const row of await currencySums(database)) {
    findings.push(...zeroSum(row));
  }
  for (const currencyCode of ["USD", "JPY"]) {
    findings.push(...(await processorAgainstBooks(db, processor, currencyCode)));
  }
  const trial = await trialBalance(database);
  const counted = await db
    .selectFrom("ledger_transfer")
    .select((eb) => eb.fn.countAll<number>().as("transfers"))
    .executeTakeFirstOrThrow();
  return {
    transfersChecked: Number(counted.transfers),
    findings: findings.slice(0, FINDINGS_MAX),
    escrowMinor: new Map(
      trial.filter((row) => row.kind === "ESCROW").map((row) => [row.currencyCode, row.creditsPostedMinor - row.debitsPostedMinor]),
    ),
  };
}

/** Each account's four sums, against the transfers that name it. */
async function accountsAgainstTransfers(db: Sql): Promise<string[]> {
  const { rows } = await sql<{ ledger_account_id: string }>`
    select a.ledger_account_id from ledger_account a
    left join (
      select account_id, sum(debit_pending) as debits_pending, sum(debit_posted) as debits_posted,
             sum(credit_pending) as credits_pending, sum(credit_posted) as credits_posted
      from (
        select debit_account_id as account_id, case when state = 'PENDING' then amount_minor else 0 end as debit_pending,
               case when state = 'POSTED' then amount_minor else 0 end as debit_posted, 0 as credit_pending, 0 as credit_posted
        from ledger_transfer
        union all
        select credit_account_id, 0, 0, case when state = 'PENDING' then amount_minor else 0 end,
               case when state = 'POSTED' then amount_minor else 0 end
        from ledger_transfer
      ) as side group by account_id
    ) as t on t.account_id = a.ledger_account_id
    where a.debits_pending_minor <> coalesce(t.debits_pending, 0) or a.debits_posted_minor <> coalesce(t.debits_posted, 0)
       or a.credits_pending_minor <> coalesce(t.credits_pending, 0) or a.credits_posted_minor <> coalesce(t.credits_posted, 0)
    order by a.ledger_account_id limit ${FINDINGS_MAX}`.execute(db);
  return rows.map((row) => `The ledger account ${row.ledger_account_id} does not agree with its transfers.`);
}

/** Sellers and escrow never owe more than they hold. */
async function uncoveredAccounts(db: Sql): Promise<string[]> {
  const rows = await db
    .selectFrom("ledger_account")
    .select("ledger_account_id")
    .where("kind", "in", ["SELLER", "ESCROW"])
    .where(sql<boolean>`debits_pending_minor + debits_posted_minor > credits_posted_minor`)
    .orderBy("ledger_account_id")
    .limit(FINDINGS_MAX)
    .execute();
  return rows.map((row) => `The ledger account ${row.ledger_account_id} has a negative balance.`);
}

/** The last line of each statement shows what is available. */
async function statementsAgainstAccounts(db: Sql): Promise<string[]> {
  const { rows } = await sql<{ ledger_account_id: string }>`
    select a.ledger_account_id from ledger_account a
    left join statement_entry e on e.ledger_account_id = a.ledger_account_id and e.entry_number = a.entry_count
    where a.kind = 'SELLER'
      and coalesce(e.balance_after_minor, 0) <> a.credits_posted_minor - a.debits_posted_minor - a.debits_pending_minor
    order by a.ledger_account_id limit ${FINDINGS_MAX}`.execute(db);
  return rows.map((row) => `The statement of ${row.ledger_account_id} does not end in what is available.`);
}

interface SumRow {
  currency_code: string;
  rule: string;
  ledger_minor: bigint;
  tables_minor: bigint;
}

/** Escrow is what was captured and neither released nor refunded; pending sums are what is authorized, and what is being paid out. */
async function sumsAgainstPayments(db: Sql): Promise<string[]> {
  const { rows } = await sql<SumRow>`
    select a.currency_code, 'escrow' as rule, sum(a.credits_posted_minor - a.debits_posted_minor) as ledger_minor,
           (select coalesce(sum(p.amount_minor), 0) from payment p
            where p.state = 'CAPTURED' and p.currency_code = a.currency_code) as tables_minor
    from ledger_account a where a.kind = 'ESCROW' group by a.currency_code
    union all
    select a.currency_code, 'authorized', sum(a.credits_pending_minor),
           (select coalesce(sum(p.amount_minor), 0) from payment p
            where p.state = 'AUTHORIZED' and p.currency_code = a.currency_code)
    from ledger_account a where a.kind = 'ESCROW' group by a.currency_code
    union all
    select a.currency_code, 'payouts under way', sum(a.credits_pending_minor),
           (select coalesce(sum(p.amount_minor), 0) from payout p
            where p.state = 'PENDING' and p.currency_code = a.currency_code)
    from ledger_account a where a.kind = 'PROCESSOR' group by a.currency_code
    union all
    select a.currency_code, 'fees', sum(a.credits_posted_minor - a.debits_posted_minor),
           (select coalesce(sum(p.fee_minor), 0) from payment p
            where p.state = 'RELEASED' and p.currency_code = a.currency_code)
    from ledger_account a where a.kind = 'FEES' group by a.currency_code`.execute(db);
  return rows
    .filter((row) => row.ledger_minor !== row.tables_minor)
    .map(
      (row) =>
        `In ${row.currency_code} the ledger's ${row.rule} is ${row.ledger_minor}, and by the payments and payouts it is ${row.tables_minor}.`,
    );
}

type CurrencySums = Omit<TrialRow, "kind">;

async function currencySums(database: Pick<PaymentDatabase, "sql">): Promise<CurrencySums[]> {
  const sums = new Map<string, { -readonly [K in keyof CurrencySums]: CurrencySums[K] }>();
  for (const { kind: _, ...row } of await trialBalance(database)) {
    const sum = sums.get(row.currencyCode);
    if (sum === undefined) {
      sums.set(row.currencyCode, { ...row });
    } else {
      sum.debitsPendingMinor += row.debitsPendingMinor;
      sum.debitsPostedMinor += row.debitsPostedMinor;
      sum.creditsPendingMinor += row.creditsPendingMinor;
      sum.creditsPostedMinor += row.creditsPostedMinor;
    }
  }
  return [...sums.values()];
}

function zeroSum(sums: CurrencySums): string[] {
  const findings: string[] = [];
  if (sums.debitsPostedMinor !== sums.creditsPostedMinor) {
    findings.push(
      `In ${sums.currencyCode} the posted debits are ${sums.debitsPostedMinor} and the posted credits ${sums.creditsPostedMinor}.`,
    );
  }
  if (sums.debitsPendingMinor !== sums.creditsPendingMinor) {
    findings.push(
      `In ${sums.currencyCode} the pending debits are ${sums.debitsPendingMinor} and the pending credits ${sums.creditsPendingMinor}.`,
    );
  }
  return findings;
}

/** Our side of the processor's books: what is posted, and what is under way and may already be in them. */
interface OurSide {
  readonly posted: ProcessorBooks;
  readonly underWay: ProcessorBooks;
}

async function ourSide(db: Sql, currencyCode: string): Promise<OurSide> {
  const { rows } = await sql<{ what: string; total_minor: bigint }>`
    select kind as what, sum(amount_minor) as total_minor from ledger_transfer
    where state = 'POSTED' and currency_code = ${currencyCode} and kind in ('CAPTURE', 'REFUND', 'PAYOUT') group by kind
    union all
    select case step when 'CAPTURE' then 'STEP_CAPTURE' else 'STEP_REFUND' end, sum(amount_minor) from payment
    where step in ('CAPTURE', 'REFUND') and currency_code = ${currencyCode} group by step
    union all
    select 'STEP_PAYOUT', sum(amount_minor) from payout
    where state = 'PENDING' and currency_code = ${currencyCode} having count(*) > 0`.execute(db);
  const sums = new Map(rows.map((row) => [row.what, row.total_minor]));
  const side = (prefix: string): ProcessorBooks => ({
    capturedMinor: sums.get(`${prefix}CAPTURE`) ?? 0n,
    refundedMinor: sums.get(`${prefix}REFUND`) ?? 0n,
    paidOutMinor: sums.get(`${prefix}PAYOUT`) ?? 0n,
  });
  return { posted: side(""), underWay: side("STEP_") };
}

async function processorAgainstBooks(db: Sql, processor: Processor, currencyCode: string): Promise<string[]> {
  const before = await ourSide(db, currencyCode);
  let books: ProcessorBooks;
  try {
    books = await processor.books(currencyCode, AbortSignal.timeout(BOOKS_TIMEOUT_MS));
  } catch (error) {
    if (error instanceof ProcessorTimeout || error instanceof ProcessorUnreachable) {
      return [`The processor's books in ${currencyCode} cannot be read now, so they are not compared.`];
    }
    throw error;
  }
  const after = await ourSide(db, currencyCode);
  const findings: string[] = [];
  for (const [name, sum] of [
    ["captured", "capturedMinor"],
    ["refunded", "refundedMinor"],
    ["paid out", "paidOutMinor"],
  ] as const) {
    const least = before.posted[sum];
    const most = after.posted[sum] + after.underWay[sum];
    if (books[sum] < least || books[sum] > most) {
      const ours = least === most ? `${least}` : `between ${least} and ${most}`;
      findings.push(`In ${currencyCode} the processor has ${name} ${books[sum]}, and by our ledger it is ${ours}.`);
    }
  }
  return findings;
}
