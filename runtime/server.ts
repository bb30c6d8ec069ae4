import { setMaxListeners } from "node:events";
import { type IncomingHttpHeaders, IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import type { Verifiers } from "#runtime/access.ts";
import { createCors } from "#runtime/cors.ts";
import { contractsOf, createDispatch, type DispatchOptions } from "#runtime/dispatch.ts";
import { createDoors } from "#runtime/doors.ts";
import { failure, OVERLOADED } from "#runtime/errors.ts";
import { createHealth, type HealthState, healthRoutes } from "#runtime/health.ts";
import { type AnyRequest, type AnyResponse, type ListenerLimits, listen } from "#runtime/listener.ts";
import type { Log } from "#runtime/log.ts";
import { SERVICE_HEADER } from "#runtime/peers.ts";
import { DEFAULT_MAX_REQUEST_BYTES, type MethodPolicy } from "#runtime/policy.ts";
import { reflectionRoutes } from "#runtime/reflection.ts";
import type { UnaryMethod } from "#runtime/rpc/method.ts";
import {
  type CallClass,
  classOf,
  createShedding,
  DEFAULT_SHEDDING_LIMITS,
  type SheddingLimits,
  watchEventLoop,
} from "#runtime/rpc/shedding.ts";
import { createUnaryServer } from "#runtime/rpc/unary-server.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { pathOf, refuse, refuseStatus, serveStream, write } from "#runtime/streams.ts";
import type { MetricsPage } from "#runtime/telemetry/metrics-page.ts";
import type { CallObserver } from "#runtime/telemetry/observer.ts";

/** What a server serves, and where. */
export interface ServerOptions {
  readonly modules: readonly Pick<ServiceModule, "name" | "routes" | "doors">[];
  /** Contracts that each of several services answers for itself. A call of one names the service it means in the header `x-souk-service`. */
  readonly inner?: readonly Pick<ServiceModule, "name" | "routes">[];
  /** 0 takes any free port. */
  readonly port: number;
  readonly host: string;
  readonly verifiers: Verifiers;
  readonly log: Log;
  /** Which parts are ready. Without it the server is ready as soon as it listens. */
  readonly health?: HealthState;
  /** Whether generic clients may ask for the contract. Off in production. */
  readonly reflection?: boolean;
  /** Origins of web pages that may call, such as `https://shop.example`; `localhost` admits every page of the own machine. */
  readonly corsOrigins?: readonly string[];
  /** Answers `/metrics`; nothing is there unless given. */
  readonly metrics?: MetricsPage | undefined;
  readonly limits?: Partial<ServerLimits>;
  /** Watches calls; nothing does unless given. */
  readonly observer?: CallObserver | undefined;
  /**
   * For modules whose contracts are others' and know neither policies nor reasons: the policy of all their methods. Errors then leave as
   * handlers threw them, and what is in no protocol gets the HTTP status and no more.
   */
  readonly foreign?: MethodPolicy;
}

/** The bounds of a server. */
export interface ServerLimits extends ListenerLimits, SheddingLimits {
  /** How long the body of a unary request may take to arrive, in ms. */
  readonly bodyTimeoutMs: number;
}

const DEFAULT_LIMITS = { ...DEFAULT_SHEDDING_LIMITS, bodyTimeoutMs: 10_000 };

/** A running server. */
export interface Server {
  /** Where it listens, such as `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly port: number;
  readonly services: readonly DescService[];
  /** What it has just now: open connections, and unary calls under way. */
  readonly load: { readonly connections: number; readonly calls: number };
  /**
   * Not ready any more; all calls are still taken for `delayMs`, so that whoever sends them notices. Then no new connections, GOAWAY; calls in flight finish within
   * `graceMs`, and the rest is cut.
   */
  stop(graceMs?: number, delayMs?: number): Promise<void>;
}

/**
 * Serves Connect, gRPC and gRPC-Web on one cleartext port over HTTP/1.1 and HTTP/2, with health, reflection, `/healthz`, `/readyz` and
 * CORS. Every answer that is an error carries a reason in its protocol's own form. Throws a sentence when the port cannot be opened.
 */
export async function startServer(options: ServerOptions): Promise<Server> {
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const health = options.health ?? createHealth();
  const shutdown = new AbortController();
  setMaxListeners(0, shutdown.signal);
  const rpcs = createRpcs(options, health, shutdown.signal);
  const pages = createCors(options.corsOrigins ?? []);
  const openDoor = createDoors(
    options.modules.flatMap((module) => module.doors ?? []),
    options.log,
  );
  const bare = options.foreign !== undefined;
  const shedding = createShedding(limits);
  const leaveEventLoop = watchEventLoop(shedding);
  const takeIn = (kind: CallClass) => {
    const retryAfterMs = shedding.admit(kind);
    return retryAfterMs === undefined ? undefined : failure(OVERLOADED, { retryAfterMs });
  };
  const unaryServer = createUnaryServer({
    bare,
    bodyTimeoutMs: limits.bodyTimeoutMs,
    corsHeaders: pages.headers,
    find: rpcs.unary,
    begin: (rpc, headers) => takeIn(classOf(rpc.desc, headers)),
    done: ({ rpc, exchange }) => shedding.leave(classOf(rpc.desc, exchange.headers)),
  });
  const handler = (request: AnyRequest, response: AnyResponse): void => {
    if (request instanceof IncomingMessage && unaryServer.takeRequest(request, response as ServerResponse)) return;
    if (pages.answers(request, response)) return;
    const path = pathOf(request);
    const stream = rpcs.stream(path, request.headers);
    if (stream === undefined) {
      if (rpcs.unary(path, request.headers) !== undefined) refuseStatus(request, response, 405, bare);
      else if (path === "/metrics" && options.metrics?.(request, response)) return;
      else if (!openDoor(request, response)) plainPage(path, request, response, health, bare);
      return;
    }
    const kind = classOf(stream.method, request.headers);
    const refusal = takeIn(kind);
    if (refusal !== undefined) {
      refuse(request, response, refusal);
      return;
    }
    response.once("close", () => shedding.leave(kind));
    serveStream(stream, request, response, { bodyTimeoutMs: limits.bodyTimeoutMs, bare }).catch((error: unknown) => {
      options.log.debug({ err: error }, "an answer could not be written");
      response.destroy();
    });
  };
  const { port, host, log } = options;
  const listener = await listen({ port, host, handler, takeStream: unaryServer.takeStream, log, limits });
  const shown = host.includes(":") ? `[${host}]` : host;
  return {
    url: `http://${shown}:${listener.port}`,
    port: listener.port,
    services: rpcs.services,
    get load() {
      return { connections: listener.connections, calls: shedding.calls };
    },
    async stop(graceMs = 10_000, delayMs = 0) {
      health.stop();
      if (delayMs > 0) {
        listener.announce();
        await sleep(delayMs);
      }
      // Streams end, so that their connections can.
      setImmediate(() => shutdown.abort());
      await listener.close(graceMs);
      leaveEventLoop();
    },
  };
}

/** The RPCs of a server, found by path, or by path and the header that names which of several services is meant. */
interface Rpcs {
  readonly services: readonly DescService[];
  unary(path: string, headers: IncomingHttpHeaders): UnaryMethod | undefined;
  stream(path: string, headers: IncomingHttpHeaders): UniversalHandler | undefined;
}

function createRpcs(options: ServerOptions, health: HealthState, shutdown: AbortSignal): Rpcs {
  const duties: DispatchOptions = { verifiers: options.verifiers, log: options.log, shutdown, observer: options.observer };
  const owners = new Map(
    options.modules.flatMap(({ name, routes }) => contractsOf(routes).map(({ typeName }) => [typeName, name])),
  );
  const parts = () => new Map(dispatch.services.map(({ typeName }) => [typeName, owners.get(typeName)]));
  const dispatch = createDispatch(
    [
      ...options.modules.map((module) => (router: ConnectRouter) => module.routes(router)),
      (router) => healthRoutes(router, health, parts),
      (router) => options.reflection === true && reflectionRoutes(router, () => dispatch.services),
    ],
    { ...duties, builtIn: (method) => builtInPolicy(method) ?? options.foreign, reasons: options.foreign === undefined },
  );
  const unary = new Map(dispatch.unary);
  const streams = new Map(dispatch.handlers.map((handler) => [handler.requestPath, handler]));
  const inner = options.inner ?? [];
  for (const { name, routes } of inner) {
    const own = createDispatch([routes], duties);
    for (const [path, method] of own.unary) unary.set(`${name}${path}`, method);
    for (const handler of own.handlers) streams.set(`${name}${handler.requestPath}`, handler);
  }
  const find = <T>(map: ReadonlyMap<string, T>, path: string, headers: IncomingHttpHeaders): T | undefined =>
    map.get(path) ?? (inner.length === 0 ? undefined : map.get(`${headers[SERVICE_HEADER]}${path}`));
  return {
    services: dispatch.services,
    unary: (path, headers) => find(unary, path, headers),
    stream: (path, headers) => find(streams, path, headers),
  };
}

/** Health and reflection are others' contracts, which declare no policy. */
function builtInPolicy(method: DescMethod): MethodPolicy | undefined {
  if (method.parent.typeName !== Health.typeName && method.parent.typeName !== ServerReflection.typeName) return undefined;
  const streams = method.methodKind !== "unary";
  return {
    anyone: true,
    account: false,
    operator: false,
    services: new Set(),
    timeoutMs: streams ? undefined : 5000,
    maxStreamAgeMs: streams ? 3_600_000 : undefined,
    maxAttempts: 1,
    maxRequestBytes: DEFAULT_MAX_REQUEST_BYTES,
    cacheControl: undefined,
  };
}

const FRONT_PAGE = `Souk: the backend of a marketplace.
RPCs are at /<package>.<Service>/<Method>, over Connect, gRPC and gRPC-Web, as JSON or protobuf:
  curl --json '{}' $HOST/marketplace.catalog.v1.CatalogService/ListCategories
The contract is in proto/, and asked of grpc.reflection.v1. Health: /healthz, /readyz, grpc.health.v1.
`;

/** The few pages that are not RPCs. `/healthz` says that the process lives, `/readyz` that it takes calls. */
function plainPage(path: string, request: AnyRequest, response: AnyResponse, health: HealthState, bare: boolean): void {
  const reads = request.method === "GET" || request.method === "HEAD";
  if (!reads || (path !== "/" && path !== "/healthz" && path !== "/readyz")) {
    refuseStatus(request, response, 404, bare);
    return;
  }
  const waiting = health.waitingFor();
  const ready = path !== "/readyz" || health.ready();
  const text =
    path === "/" ? FRONT_PAGE : ready ? "ok\n" : waiting.length === 0 ? "stopping\n" : `waiting for ${waiting.join(", ")}\n`;
  const headers = { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" };
  write(response, ready ? 200 : 503, headers, request.method === "HEAD" ? undefined : text);
}
