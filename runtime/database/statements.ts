import { channel } from "node:diagnostics_channel";

/** A statement as it goes to a database. */
export interface Statement {
  /** The owner of the database. */
  readonly service: string;
  /** With a question mark for each parameter. */
  readonly sql: string;
  readonly parameters: readonly unknown[];
}

/** Hears of every statement just before it is sent, for tests and measurements: `diagnostics_channel.subscribe("souk.statement", …)`. Costs nothing while nobody listens. */
export const statements = channel("souk.statement");

/** Tells those who listen. */
export function tellStatement(service: string, sql: string, parameters: readonly unknown[]): void {
  if (statements.hasSubscribers) {
    statements.publish({ service, sql, parameters } satisfies Statement);
  }
}
