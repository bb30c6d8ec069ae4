import { Code } from "@connectrpc/connect";
import { reason } from "#runtime/errors.ts";

/** A service was named that does not exist, or that has no tables and therefore neither dead letters nor jobs. */
export const SERVICE_UNKNOWN = reason(
  "SERVICE_UNKNOWN",
  Code.NotFound,
  "There is no such service with tables of its own. Its metadata names those there are.",
);
