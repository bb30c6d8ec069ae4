import { createRegistry, type DescMessage, type DescMethod, type DescMethodUnary, type DescService } from "@bufbuild/protobuf";
import {
  type ConnectRouter,
  type ConnectRouterOptions,
  createConnectRouter,
  type MethodImpl,
  type ServiceImpl,
} from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { compressionGzip } from "@connectrpc/connect-node";
import type { Verifiers } from "#runtime/access.ts";
import { type Duties, methodFactory } from "#runtime/duties.ts";
import { fail, UNIMPLEMENTED } from "#runtime/errors.ts";
import { createGate, createInterceptor } from "#runtime/interceptors.ts";
import type { Log } from "#runtime/log.ts";
import { MAX_REQUEST_BYTES, type MethodPolicy, methodName, readPolicies } from "#runtime/policy.ts";
import type { UnaryMethod } from "#runtime/rpc/method.ts";
import type { CallObserver } from "#runtime/telemetry/observer.ts";
import { createValidation } from "#runtime/validation.ts";

/** The largest answer in bytes. */
const MAX_RESPONSE_BYTES = 16 * 1024 * 1024;

/** What calls are dispatched with; the same for a port and for co-hosted callers. */
export interface DispatchOptions {
  readonly verifiers: Verifiers;
  readonly log: Log;
  /** Aborted when the process stops: streams end, unary calls finish. */
  readonly shutdown?: AbortSignal;
  /** Policies of services whose contract is others' and declares none. */
  readonly builtIn?: (method: DescMethod) => MethodPolicy | undefined;
  /** False where contracts are others' that know no reasons: errors leave as handlers threw them, ours without their reasons. */
  readonly reasons?: boolean;
  /** Watches calls; nothing does unless given. */
  readonly observer?: CallObserver | undefined;
}

/** Registered RPCs, each behind all duties. */
export interface Dispatch {
  /** Unary methods by their paths, such as `/marketplace.order.v1.OrderService/PlaceOrder`. */
  readonly unary: ReadonlyMap<string, UnaryMethod>;
  /** Streams, which the library serves. */
  readonly handlers: readonly UniversalHandler[];
  readonly services: readonly DescService[];
}

/** Registers services at a router: `router.service(CatalogService, {…})`. */
export type Routes = (router: ConnectRouter) => void;

/**
 * Registers RPCs behind their duties: policy, identity, deadline, size, validation, errors, log. Throws when a method's policy is
 * missing or cannot be served. A method without an implementation answers UNIMPLEMENTED.
 * A contract that several of the routes implement is left out: on one port none of them can be meant.
 */
export function createDispatch(routes: readonly Routes[], options: DispatchOptions): Dispatch {
  const registered = collect(routes);
  const foreign = options.builtIn ?? (() => undefined);
  const methods = registered.flatMap(({ service }) => service.methods);
  const own = registered.map(({ service }) => service).filter((service) => !service.methods.every(foreign));
  const policies = new Map<DescMethod, MethodPolicy>(readPolicies(own));
  for (const method of methods) {
    const policy = foreign(method);
    if (policy !== undefined) policies.set(method, policy);
  }
  const duties: Duties = {
    policies,
    verifiers: options.verifiers,
    validation: createValidation(new Set<DescMessage>(methods.map((method) => method.input))),
    log: options.log,
    reasons: options.reasons ?? true,
    types: createRegistry(...registered.map(({ service }) => service.file)),
    shutdown: options.shutdown ?? new AbortController().signal,
    observer: options.observer,
  };
  const methodOf = methodFactory(duties, MAX_RESPONSE_BYTES);
  const unary = new Map<string, UnaryMethod>();
  const router = createConnectRouter(routerOptions(duties));
  for (const { service, implementation } of registered) {
    for (const method of service.methods) {
      const own = implementationOf(method, implementation);
      if (method.methodKind === "unary") {
        unary.set(`/${methodName(method)}`, methodOf(method as DescMethodUnary, own as UnaryMethod["implementation"]));
      } else {
        const { maxRequestBytes } = policies.get(method) as MethodPolicy;
        router.rpc(method, own, { readMaxBytes: maxRequestBytes });
      }
    }
  }
  return { unary, handlers: router.handlers, services: registered.map(({ service }) => service) };
}

function routerOptions(duties: Duties): ConnectRouterOptions {
  return {
    requestGate: createGate(duties),
    interceptors: [createInterceptor(duties)],
    acceptCompression: [compressionGzip],
    readMaxBytes: MAX_REQUEST_BYTES,
    writeMaxBytes: MAX_RESPONSE_BYTES,
    jsonOptions: { ignoreUnknownFields: false, registry: duties.types },
    requireConnectProtocolHeader: false,
  };
}

interface Registered {
  readonly service: DescService;
  readonly implementation: Partial<ServiceImpl<DescService>>;
}

/** Runs the registrations against a router that only takes notes, so that each method can then be given its own limits. */
function collect(routes: readonly Routes[]): Registered[] {
  const registered = new Map<string, Registered[]>();
  for (const register of routes) {
    const notes: ConnectRouter = {
      handlers: [],
      service(service, implementation) {
        const entry = { service, implementation: implementation as Registered["implementation"] };
        registered.set(service.typeName, [...(registered.get(service.typeName) ?? []), entry]);
        return notes;
      },
      rpc() {
        throw new Error("Register a service as a whole: router.service(…).");
      },
    };
    register(notes);
  }
  return [...registered.values()].flatMap((entries) => (entries.length === 1 ? entries : []));
}

/** The contracts that some routes implement. */
export function contractsOf(routes: Routes): readonly DescService[] {
  return collect([routes]).map(({ service }) => service);
}

function implementationOf(method: DescMethod, implementation: Registered["implementation"]): MethodImpl<DescMethod> {
  // The descriptor is not known to the compiler, nor is therefore the implementation's type.
  const own = implementation[method.localName] as ((...args: never[]) => unknown) | undefined;
  const unimplemented = () =>
    fail(UNIMPLEMENTED, { message: `${methodName(method)} is part of the contract and not implemented yet.` });
  return (own?.bind(implementation) ?? unimplemented) as MethodImpl<DescMethod>;
}
