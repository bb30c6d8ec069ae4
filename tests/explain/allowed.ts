/** Statements that may read more than others. Each must be met by the test: an entry that is not needed any more has to go. */
export const allowed: readonly { readonly database: string; readonly shape: RegExp; readonly why: string }[] = [
  {
    database: "souk_order",
    shape: /^select `currency_code`, `state`, sum\(`total_minor`\)/,
    why: "GetEscrowTotals adds up every order that is under way, from the index orders_state alone; only an operator's CheckBooks asks for it.",
  },
  {
    database: "souk_inventory",
    shape:
      /^select `s`\.`listing_id`.* from \(select \* from `stock` where `listing_id` > \? order by `listing_id` limit \?\) as `s` left join/,
    why: "CheckStock reads 1,000 listings at a time, by their primary key, with their lines; the plan's estimate ignores the limit of the inner query.",
  },
  {
    database: "souk_payment",
    shape: /^select `kind`, `currency_code`, sum\(.* from `ledger_account` group by/,
    why: "A trial balance is the sum of all accounts; only operators ask for it.",
  },
  {
    database: "souk_payment",
    shape: /^select a\.ledger_account_id from ledger_account a left join \( select account_id, sum\(debit_pending\)/,
    why: "CheckBooks compares every account with all of its transfers; only operators ask for it, and it has 60 seconds.",
  },
  {
    database: "souk_payment",
    shape: /^select `ledger_account_id` from `ledger_account` where `kind` in \(\?\) and debits_pending_minor/,
    why: "CheckBooks looks at the balance of every account.",
  },
  {
    database: "souk_payment",
    shape: /^select a\.ledger_account_id from ledger_account a left join statement_entry e/,
    why: "CheckBooks compares every seller's account with the last line of its statement.",
  },
  {
    database: "souk_payment",
    shape: /^select a\.currency_code, \? as rule, sum\(/,
    why: "CheckBooks compares the ledger with the sums of payments and payouts.",
  },
  {
    database: "souk_payment",
    shape: /^select kind as what, sum\(amount_minor\) as total_minor from ledger_transfer/,
    why: "CheckBooks compares the sums of all transfers with the processor's books.",
  },
  {
    database: "souk_payment",
    shape: /^select count\(\*\) as `transfers` from `ledger_transfer`$/,
    why: "CheckBooks says how many transfers it compared.",
  },
];
