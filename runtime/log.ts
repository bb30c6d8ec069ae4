import type { pino } from "pino";

/** Where a process writes what it did. Lines carry ids and reasons, never bodies, names, addresses or card data. */
export type Log = pino.Logger;
