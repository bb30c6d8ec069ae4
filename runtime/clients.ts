import type { DescService } from "@bufbuild/protobuf";
import { type CallOptions, type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createUniversalHandlerClient } from "@connectrpc/connect/protocol";
import { createTransport } from "@connectrpc/connect/protocol-connect";
import { ACCOUNT_HEADER, SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { accountIfAny, type Call } from "#runtime/call.ts";
import { createDispatch, type DispatchOptions } from "#runtime/dispatch.ts";
import { DEADLINE_EXCEEDED, fail } from "#runtime/errors.ts";
import { methodName } from "#runtime/policy.ts";
import { createMemoryTransport } from "#runtime/rpc/memory.ts";
import type { UnaryMethod } from "#runtime/rpc/method.ts";
import type { ServiceModule } from "#runtime/service.ts";
import type { ServiceTokenSource } from "#runtime/tokens.ts";

/** The clients that one service calls others with. Each call carries the service's own token. */
export interface Clients {
  /**
   * A typed client of the service that implements this contract, wherever it runs. Pass `module` where several services implement the
   * same one: `clients.of(MaintenanceService, "payment")`. May be asked for before the services exist; the first call looks.
   */
  of<S extends DescService>(service: S, module?: string): Client<S>;
  /** The same, the module first: `clients.at("payment", MaintenanceService)`. */
  at<S extends DescService>(module: string, service: S): Client<S>;
  /** The names of all services there are. */
  modules(): readonly string[];
}

/** Where services are found. One for each process; `services/main.ts` fills it. */
export interface Directory {
  /** Makes services callable in this process: messages are copied, and every duty is done as for a call from outside. */
  host(modules: readonly ServiceModule[]): void;
  /** Makes a service callable that another process runs. */
  reach(name: string, way: Way): void;
  /** The names of all services, in the order in which they were made callable. */
  modules(): readonly string[];
  /** The clients of one service, which is known by its tokens: `directory.clientsFor(serviceTokens(keys, "order"))`; `interceptors` see its calls. */
  clientsFor(tokens: ServiceTokenSource, interceptors?: readonly Interceptor[]): Clients;
  /** The transport to a service with headers of the caller's choice, for tests and tools. */
  transport(service: DescService, module?: string, interceptors?: Interceptor[]): Transport;
}

/** The way to a service. */
export interface Way {
  /** The contracts it implements. */
  readonly services: readonly DescService[];
  open(interceptors: Interceptor[]): Transport;
  /** The same for a service that is known by its tokens, where that is cheaper than an interceptor that adds them. */
  openAs?(tokens: ServiceTokenSource, interceptors: readonly Interceptor[]): Transport;
}

/** An empty directory whose co-hosted services do their duties with these options. */
export function createDirectory(options: DispatchOptions): Directory {
  const hosted = new Map<string, Way>();
  const breathe = breathing();
  const find = (service: DescService, module: string | undefined): Way => {
    if (module !== undefined) {
      const found = hosted.get(module);
      if (found === undefined || !found.services.some((s) => s.typeName === service.typeName)) {
        throw new Error(`No service "${module}" with ${service.typeName} is known. Known are: ${[...hosted.keys()].join(", ")}.`);
      }
      return found;
    }
    const found = [...hosted].filter(([, entry]) => entry.services.some((s) => s.typeName === service.typeName));
    if (found.length > 1) {
      throw new Error(`${service.typeName} is implemented by ${found.map(([name]) => name).join(", ")}: say which.`);
    }
    const only = found[0];
    if (only === undefined) {
      throw new Error(`Nobody implements ${service.typeName}. Known are: ${[...hosted.keys()].join(", ")}.`);
    }
    return only[1];
  };
  const modules = () => [...hosted.keys()];
  const add = (name: string, way: Way) => {
    if (hosted.has(name)) {
      throw new Error(`The service "${name}" is hosted twice.`);
    }
    hosted.set(name, way);
  };
  return {
    host(added) {
      for (const module of added) add(module.name, hostInMemory(module, options, breathe));
    },
    reach: add,
    modules,
    clientsFor(tokens, seeing = []) {
      const of = <S extends DescService>(service: S, module?: string): Client<S> =>
        createClient(
          service,
          lazyTransport(() => {
            const way = find(service, module);
            return way.openAs?.(tokens, seeing) ?? way.open([...seeing, identityInterceptor(tokens)]);
          }),
        );
      return { of, at: (module, service) => of(service, module), modules };
    },
    transport: (service, module, interceptors = []) => find(service, module).open(interceptors),
  };
}

function hostInMemory(module: ServiceModule, options: DispatchOptions, breathe: () => Promise<void> | undefined): Way {
  const { unary, handlers, services } = createDispatch([(router) => module.routes(router)], options);
  const httpClient = createUniversalHandlerClient([...handlers]);
  const open = (interceptors: readonly Interceptor[], tokens?: ServiceTokenSource): Transport =>
    createMemoryTransport({
      target: module.name,
      find: (method) => unary.get(`/${methodName(method)}`) as UnaryMethod,
      interceptors,
      ...(tokens === undefined ? {} : { ownHeaders: async () => ({ [SERVICE_TOKEN_HEADER]: await tokens() }) }),
      breathe,
      observer: options.observer,
      streams: createTransport({
        httpClient,
        baseUrl: `https://${module.name}.in-memory`,
        useBinaryFormat: true,
        interceptors: [...interceptors, ...(tokens === undefined ? [] : [identityInterceptor(tokens)])],
        acceptCompression: [],
        sendCompression: null,
        compressMinBytes: Number.MAX_SAFE_INTEGER,
        readMaxBytes: 0xffffffff,
        writeMaxBytes: 0xffffffff,
      }).stream,
    });
  return { services, open, openAs: (tokens, interceptors) => open(interceptors, tokens) };
}

/** How long calls between co-hosted services may keep the event loop from turning. */
const BREATH_MS = 10;

/**
 * Lets the event loop turn now and then. A call in memory on an embedded database never leaves the queue of promises: a burst of calls that call others
 * would hold up sockets, timers and verifications until the last of them is through.
 */
function breathing(): () => Promise<void> | undefined {
  let turnTime = performance.now();
  let turn: Promise<void> | undefined;
  const nextTurn = () =>
    new Promise<void>((resolve) => {
      setImmediate(() => {
        turnTime = performance.now();
        turn = undefined;
        resolve();
      });
    });
  return () => {
    if (performance.now() - turnTime <= BREATH_MS) return undefined;
    turn ??= nextTurn();
    return turn;
  };
}

/** Puts off the search for a service until it is called: services are made before they can be found. */
function lazyTransport(open: () => Transport): Transport {
  let transport: Transport | undefined;
  const get = () => {
    transport ??= open();
    return transport;
  };
  return {
    unary: (...args) => get().unary(...args),
    stream: (...args) => get().stream(...args),
  };
}

function identityInterceptor(tokens: ServiceTokenSource): Interceptor {
  return (next) => async (request) => {
    request.header.set(SERVICE_TOKEN_HEADER, await tokens());
    return next(request);
  };
}

/**
 * The options of a call made on behalf of another: `clients.of(PaymentService).capture(request, forCall(call))`. It gets the time that is
 * left, ends when its caller goes away, and names the account the work is for unless the service acts `asItself`. Fails with
 * DEADLINE_EXCEEDED when no time is left.
 */
export function forCall(call: Call, options: { asItself?: boolean } = {}): CallOptions {
  const accountId = options.asItself === true ? undefined : accountIfAny(call);
  const leftMs = Math.floor(call.deadline - Date.now());
  // To the library a timeout of 0 means none.
  if (leftMs <= 0) fail(DEADLINE_EXCEEDED);
  return {
    signal: call.signal,
    ...(leftMs === Infinity ? {} : { timeoutMs: leftMs }),
    ...(accountId === undefined ? {} : { headers: { [ACCOUNT_HEADER]: accountId } }),
  };
}

/** The options of a call that a job or a consumer makes for an account, when the account's own call is long over. */
export function forAccount(accountId: string, options: { timeoutMs?: number; signal?: AbortSignal } = {}): CallOptions {
  return { ...options, headers: { [ACCOUNT_HEADER]: accountId } };
}
