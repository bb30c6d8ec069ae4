import { type Contract, isExposed, type Method } from "./contract.ts";

/** How long to wait before the first retry, and at most; the same for every method. */
const BACKOFF = { initialBackoff: "0.1s", maxBackoff: "2s", backoffMultiplier: 2 };
/** DEADLINE_EXCEEDED that comes while the caller still has time is that of an attempt. */
const RETRYABLE = ["UNAVAILABLE", "DEADLINE_EXCEEDED"];
/** Retries stop while fewer than half of the tokens are left: a failed call takes one, a call that succeeds gives a tenth back. */
const THROTTLING = { maxTokens: 100, tokenRatio: 0.1 };

/**
 * The gRPC service config of every service, for callers outside the mesh: timeouts, and retries only where they are declared. Streams get no timeout.
 * One file a service: `maxTokens` are counted for each server name.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/service_config.md
 */
export function serviceConfigs({ services }: Contract): [string, unknown][] {
  return services.map((service) => [
    service.name,
    {
      methodConfig: service.methods.filter(isReachable).map((method) => ({
        name: [{ service: service.name, method: method.name.split("/")[1] }],
        ...(method.timeoutMs === undefined ? {} : { timeout: `${method.timeoutMs / 1000}s` }),
        ...retryPolicy(method),
      })),
      retryThrottling: THROTTLING,
    },
  ]);
}

function isReachable(method: Method): boolean {
  return isExposed(method) || method.access.services.length > 0;
}

function retryPolicy({ attempts }: Method) {
  if (attempts === 1) return {};
  return { retryPolicy: { maxAttempts: attempts, ...BACKOFF, retryableStatusCodes: RETRYABLE } };
}
