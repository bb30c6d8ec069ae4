import { type Channel, channel } from "node:diagnostics_channel";

/** A statement as it goes to a database. */
export interface Statement {
  /** The owner of the database. */
  readonly service: string;
  /** In whose words it is: MariaDB's and MySQL's, or SQLite's. */
  readonly dialect: "mysql" | "sqlite";
  /** With a question mark for each parameter. */
  readonly sql: string;
  readonly parameters: readonly unknown[];
}

/**
 * Hears of every statement just before it is sent, for tests and measurements: `subscribe("souk.statement", …)`. Whoever publishes asks first whether
 * anybody listens, so that it costs nothing else.
 */
export const statements: Channel<unknown, Statement> = channel("souk.statement");
