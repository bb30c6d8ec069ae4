import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { type Attempts, type GrpcClient, openGrpcClient } from "#runtime/client/transport.ts";
import { failure, UNAVAILABLE } from "#runtime/errors.ts";
import { MAX_REQUEST_BYTES, policyOf } from "#runtime/policy.ts";
import { asFromElsewhere } from "#runtime/rpc/memory.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";

/** Names the service a call is for, where a port serves several that implement the same contract. It decides nothing else. */
export const SERVICE_HEADER = "x-souk-service";

/** The largest answer that is read, in bytes; what a server sends at most. */
const MAX_RESPONSE_BYTES = 16 * 1024 * 1024;

/** How the services of other processes are reached. */
export interface PeersOptions {
  /** Where a service is reached, such as "http://souk-order:8080", or at several places, separated by spaces. */
  readonly urlOf: (service: string) => string;
  /** Whether failed calls are tried again as their policy allows; not where a mesh between the processes does that. True unless given. */
  readonly retries?: boolean | undefined;
  readonly observer?: Pick<Observer, "clientCall"> | undefined;
}

/** The services that other processes run. */
export interface Peers {
  /** The way to one of them; it is connected to when it is called. */
  open(service: string, interceptors: Interceptor[]): Transport;
  /** What became of the calls so far, to all of them. */
  attempts(): Attempts;
  /** Ends all connections, and the calls on them. */
  close(): void;
}

/**
 * Reaches services over gRPC. An answer keeps its reason; whatever goes wrong on the way is UNAVAILABLE, which says nothing about whether the call took
 * effect. A call takes at most what its method's policy allows, also when the peer is gone without a word, and is tried as often as it allows.
 */
export function openPeers({ urlOf, retries = true, observer }: PeersOptions): Peers {
  const clients = new Map<string, GrpcClient>();
  const boundsOf = (method: DescMethod) => {
    const { timeoutMs, maxAttempts } = policyOf(method);
    return { timeoutMs, maxAttempts: retries ? maxAttempts : 1 };
  };
  const clientTo = (baseUrl: string): GrpcClient => {
    const known = clients.get(baseUrl);
    if (known !== undefined) return known;
    const limits = { readMaxBytes: MAX_RESPONSE_BYTES, writeMaxBytes: MAX_REQUEST_BYTES };
    const client = openGrpcClient({ baseUrl: baseUrl.split(" "), boundsOf, observer, ...limits });
    clients.set(baseUrl, client);
    return client;
  };
  return {
    open: (service, interceptors) =>
      named(clientTo(urlOf(service)).transport({ interceptors, headers: { [SERVICE_HEADER]: service } }), service),
    attempts() {
      const all = { calls: 0, sent: 0, retried: 0, resent: 0 };
      for (const { attempts } of clients.values()) {
        for (const each of Object.keys(all) as (keyof Attempts)[]) all[each] += attempts[each];
      }
      return all;
    },
    close() {
      for (const client of clients.values()) client.close();
    },
  };
}

/** Names what went wrong between the processes. */
function named(transport: Transport, service: string): Transport {
  return {
    unary: (method, signal, ...rest) =>
      transport.unary(method, signal, ...rest).catch((error: unknown) => {
        throw onTheWay(ConnectError.from(error), service, signal);
      }),
    stream: (method, signal, ...rest) =>
      transport.stream(method, signal, ...rest).catch((error: unknown) => {
        throw onTheWay(ConnectError.from(error), service, signal);
      }),
  };
}

const CODES_OF_THE_WAY = new Set([Code.Aborted, Code.Canceled, Code.Internal, Code.Unavailable, Code.Unknown]);

/** Every answer of a peer carries a reason; an error without one arose between us. */
function onTheWay(error: ConnectError, service: string, signal: AbortSignal | undefined): ConnectError {
  if (error.details.length > 0 || signal?.aborted || !CODES_OF_THE_WAY.has(error.code)) return error;
  return asFromElsewhere(failure(UNAVAILABLE, { message: `The service ${service} is out of reach. Try again.` }), error);
}
