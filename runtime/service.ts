import type { ConnectRouter } from "@connectrpc/connect";
import type { Database } from "#runtime/database/database.ts";
import type { Subscription } from "#runtime/events/bus.ts";
import type { JobHandler, RecurringJob } from "#runtime/jobs/jobs.ts";

/** A door that is not an RPC, such as a page a person is sent to. The server asks no token and reads no policy: the handler guards it. */
export interface Door {
  readonly method: "GET" | "POST";
  /** Where it stands: the handler gets every request of this method for this path or, where it ends with a slash, for one that begins so. */
  readonly path: string;
  handle(request: Request): Promise<Response>;
}

/**
 * A service as `services/main.ts` wires it: its RPCs, its database, what it consumes and what it does by itself. Every
 * `services/<context>/service.ts` exports one factory that takes its dependencies and returns this.
 */
export interface ServiceModule {
  /** The context's name, such as "catalog": its identity towards others, its database's file, its name on the command line. */
  readonly name: string;
  /** Registers the RPCs. Called once for each server and transport: `router.service(CatalogService, {…})`. */
  routes(router: ConnectRouter): void;
  /** The service's own tables; absent where it owns none. */
  readonly database?: Database;
  /** What it applies of others' events. */
  readonly consumers: readonly Subscription[];
  /** What it does when a scheduled time has come. */
  readonly jobs: readonly JobHandler[];
  /** What it does again and again. */
  readonly recurring: readonly RecurringJob[];
  /** Its doors beside the RPCs; none unless given. */
  readonly doors?: readonly Door[];
  /** Runs before the process becomes ready, after all databases are open: warms caches, starts workers. */
  start?(): Promise<void>;
  /** Runs after the last call and the last event. */
  stop?(): Promise<void>;
}
