import type { ConnectRouter } from "@connectrpc/connect";
import { Code } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.ts";
import { callOf } from "#runtime/call.ts";
import { fail, reason } from "#runtime/errors.ts";

/** The health of a service that is not here was asked for. */
export const SERVICE_UNKNOWN = reason("SERVICE_UNKNOWN", Code.NotFound, "There is no such service in this process.");

/** Which parts of a process are ready. The process is when all of them are. */
export interface HealthState {
  /** Adds a part that is not ready yet. */
  add(part: string): void;
  /** Says whether a part is ready. */
  set(part: string, ready: boolean): void;
  /** The parts that are not ready; empty when the process is. */
  waitingFor(): readonly string[];
  /** Whether all parts are ready, or one of them, and the process is not stopping. A part that nobody has added is. */
  ready(part?: string): boolean;
  /** The process stops: not ready any more, for good. */
  stop(): void;
  /** Calls back after each change, until the signal aborts. */
  onChange(listener: () => void, signal: AbortSignal): void;
}

/** The health of a process that has no parts yet, and is therefore ready. */
export function createHealth(): HealthState {
  const parts = new Map<string, boolean>();
  const listeners = new Set<() => void>();
  let stopped = false;
  const changed = () => {
    for (const listener of listeners) listener();
  };
  const waitingFor = () => [...parts].filter(([, ready]) => !ready).map(([part]) => part);
  return {
    add(part) {
      parts.set(part, false);
      changed();
    },
    set(part, ready) {
      if (parts.get(part) === ready) return;
      parts.set(part, ready);
      changed();
    },
    waitingFor,
    ready: (part) => !stopped && (part === undefined ? waitingFor().length === 0 : parts.get(part) !== false),
    stop() {
      stopped = true;
      changed();
    },
    onChange(listener, signal) {
      if (signal.aborted) return;
      listeners.add(listener);
      signal.addEventListener("abort", () => listeners.delete(listener), { once: true });
    },
  };
}

/**
 * Registers `grpc.health.v1.Health`: for the process (the empty name), and for each contract, which is as ready as the part that implements it.
 *
 * @param parts the parts by the names of the contracts; undefined where the process as a whole answers
 */
export function healthRoutes(
  router: ConnectRouter,
  health: HealthState,
  parts: () => ReadonlyMap<string, string | undefined>,
): void {
  const status = (service: string): Status => {
    if (service !== "" && !parts().has(service)) return Status.SERVICE_UNKNOWN;
    return health.ready(parts().get(service)) ? Status.SERVING : Status.NOT_SERVING;
  };
  router.service(Health, {
    check({ service }) {
      const now = status(service);
      return now === Status.SERVICE_UNKNOWN ? fail(SERVICE_UNKNOWN, { metadata: { service } }) : { status: now };
    },
    list() {
      return { statuses: Object.fromEntries(["", ...parts().keys()].map((name) => [name, { status: status(name) }])) };
    },
    async *watch({ service }, context) {
      const { signal } = callOf(context);
      let wake = () => {};
      health.onChange(() => wake(), signal);
      signal.addEventListener("abort", () => wake(), { once: true });
      let told: Status | undefined;
      while (!signal.aborted) {
        const changed = new Promise<void>((resolve) => {
          wake = resolve;
        });
        const now = status(service);
        if (now !== told) {
          told = now;
          yield { status: now };
        } else {
          await changed;
        }
      }
    },
  });
}
