import { setMaxListeners } from "node:events";
import { Http2ServerResponse } from "node:http2";
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { type ConnectError, type ConnectRouter, cors, createContextValues } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import type { Verifiers } from "#runtime/access.ts";
import { createDispatch } from "#runtime/dispatch.ts";
import { createDoors } from "#runtime/doors.ts";
import { DEADLINE_EXCEEDED, failure, MALFORMED_REQUEST, OVERLOADED } from "#runtime/errors.ts";
import { createHealth, type HealthState, healthRoutes } from "#runtime/health.ts";
import { type Arrival, arrivalKey } from "#runtime/interceptors.ts";
import { type AnyRequest, type AnyResponse, type ListenerLimits, listen } from "#runtime/listener.ts";
import type { Log } from "#runtime/log.ts";
import { SERVICE_HEADER } from "#runtime/peers.ts";
import { DEFAULT_MAX_REQUEST_BYTES, type MethodPolicy } from "#runtime/policy.ts";
import { reflectionRoutes } from "#runtime/reflection.ts";
import { statusFailure } from "#runtime/refusals.ts";
import type { ServiceModule } from "#runtime/service.ts";

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
  readonly limits?: Partial<ServerLimits>;
}

/** The bounds of a server. */
export interface ServerLimits extends ListenerLimits {
  /** Unary calls at once; more are told to come back. */
  readonly maxCalls: number;
  /** How long the body of a unary request may take to arrive, in ms. */
  readonly bodyTimeoutMs: number;
}

const DEFAULT_LIMITS = { maxCalls: 5000, bodyTimeoutMs: 10_000 };

/** A running server. */
export interface Server {
  /** Where it listens, such as `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly port: number;
  readonly services: readonly DescService[];
  /** Not ready any more, no new connections, GOAWAY; calls in flight finish within `graceMs`, then the rest is cut. */
  stop(graceMs?: number): Promise<void>;
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
  const names = () => dispatch.services.map(({ typeName }) => typeName);
  const dispatch = createDispatch(
    [
      ...options.modules.map((module) => (router: ConnectRouter) => module.routes(router)),
      (router) => healthRoutes(router, health, names),
      (router) => options.reflection === true && reflectionRoutes(router, () => dispatch.services),
    ],
    { verifiers: options.verifiers, log: options.log, shutdown: shutdown.signal, builtIn: builtInPolicy },
  );
  const handlers = new Map(dispatch.handlers.map((handler) => [handler.requestPath, handler]));
  const duties = { verifiers: options.verifiers, log: options.log, shutdown: shutdown.signal };
  const inner = new Map(
    (options.inner ?? []).flatMap(({ name, routes }) =>
      createDispatch([routes], duties).handlers.map((handler) => [`${name}${handler.requestPath}`, handler] as const),
    ),
  );
  const corsFor = createCors(options.corsOrigins ?? []);
  const openDoor = createDoors(
    options.modules.flatMap((module) => module.doors ?? []),
    options.log,
  );
  let calls = 0;
  const handler = (request: AnyRequest, response: AnyResponse): void => {
    if (corsFor(request, response)) return;
    const path = pathOf(request);
    const rpc = handlers.get(path) ?? inner.get(`${request.headers[SERVICE_HEADER]}${path}`);
    if (rpc === undefined) {
      if (!openDoor(request, response)) plainPage(path, request, response, health);
      return;
    }
    if (calls >= limits.maxCalls) {
      refuse(request, response, failure(OVERLOADED, { retryAfterMs: 1000 }));
      return;
    }
    if (rpc.method.methodKind === "unary") {
      calls++;
      response.once("close", () => {
        calls--;
      });
    }
    serve(rpc, request, response, limits.bodyTimeoutMs).catch((error: unknown) => {
      options.log.debug({ err: error }, "an answer could not be written");
      response.destroy();
    });
  };
  const listener = await listen({ port: options.port, host: options.host, handler, log: options.log, limits });
  const shown = options.host.includes(":") ? `[${options.host}]` : options.host;
  return {
    url: `http://${shown}:${listener.port}`,
    port: listener.port,
    services: dispatch.services,
    async stop(graceMs = 10_000) {
      health.stop();
      // Streams end, so that their connections can.
      setImmediate(() => shutdown.abort());
      await listener.close(graceMs);
    },
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
    maxRequestBytes: DEFAULT_MAX_REQUEST_BYTES,
    cacheControl: undefined,
  };
}

async function serve(handler: UniversalHandler, request: AnyRequest, response: AnyResponse, bodyTimeoutMs: number): Promise<void> {
  const values = createContextValues();
  let universal: UniversalServerRequest;
  try {
    universal = universalRequestFromNodeRequest(request, response as never, undefined, values);
  } catch {
    refuse(request, response, failure(MALFORMED_REQUEST, { message: "The request names no host." }));
    return;
  }
  const answer = await handler({
    ...universal,
    body: inTime(universal.body as AsyncIterable<Uint8Array>, handler.method, () => values.get(arrivalKey), bodyTimeoutMs),
  });
  if (answer.status !== 200 && answer.body === undefined) {
    if (answer.status === 405) response.setHeader("allow", handler.allowedMethods.join(", "));
    refuse(request, response, statusFailure(answer.status, pathOf(request)), answer.status);
    return;
  }
  if (await writeTrailersOnly(answer, response)) return;
  await universalResponseToNodeResponse(answer, response as never);
}

/** A body that fails when it does not arrive within the call's deadline and the server's patience. */
async function* inTime(
  body: AsyncIterable<Uint8Array>,
  method: DescMethod,
  arrival: () => Arrival | undefined,
  bodyTimeoutMs: number,
): AsyncGenerator<Uint8Array> {
  // A stream's messages come when they come; its age bounds it.
  const patience = method.methodKind === "unary" || method.methodKind === "server_streaming" ? bodyTimeoutMs : Infinity;
  const leftMs = Math.min(patience, (arrival()?.deadline ?? Infinity) - Date.now());
  const iterator = body[Symbol.asyncIterator]();
  let late: (error: ConnectError) => void = () => {};
  const timeout = new Promise<never>((_, reject) => {
    late = reject;
  });
  timeout.catch(() => {});
  const timer =
    leftMs > 0x7fffffff
      ? undefined
      : setTimeout(() => late(failure(DEADLINE_EXCEEDED, { message: "The request did not arrive in time." })), Math.max(0, leftMs));
  try {
    for (;;) {
      const chunk = await Promise.race([iterator.next(), timeout]);
      if (chunk.done === true) return;
      yield chunk.value;
    }
  } finally {
    clearTimeout(timer);
    iterator.return?.().catch(() => {});
  }
}

/**
 * Writes a gRPC error without messages as Trailers-Only: headers that end the stream. A proxy that retries on a status looks for it there
 * and nowhere else. Answers whether it did.
 */
async function writeTrailersOnly(answer: UniversalServerResponse, response: AnyResponse): Promise<boolean> {
  const { trailer, body } = answer;
  if (!(response instanceof Http2ServerResponse) || trailer === undefined || body === undefined) return false;
  const iterator = body[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done !== true) {
    // Put the message back in front of the others.
    answer.body = (async function* () {
      yield first.value;
      yield* { [Symbol.asyncIterator]: () => iterator };
    })();
    return false;
  }
  if (response.stream.destroyed) return true;
  const headers = new Headers(answer.header);
  headers.delete("grpc-encoding");
  trailer.forEach((value, name) => {
    headers.set(name, value);
  });
  response.stream.respond({ ...response.getHeaders(), ":status": 200, ...Object.fromEntries(headers) }, { endStream: true });
  return true;
}

/** Answers an error that no handler answered, in the form of the protocol that the request speaks. */
function refuse(request: AnyRequest, response: AnyResponse, error: ConnectError, status?: number): void {
  const type = request.headers["content-type"] ?? "";
  if (/^application\/grpc/.test(type)) {
    const trailer = setTrailerStatus(new Headers(), error);
    write(response, 200, { "content-type": type, ...Object.fromEntries(trailer) });
    return;
  }
  const headers = { "content-type": "application/json", "cache-control": "no-store" };
  const body = request.method === "HEAD" ? undefined : errorToJsonBytes(error, undefined);
  write(response, status ?? codeToHttpStatus(error.code), headers, body);
}

/** Sets each header by itself: the two kinds of response agree on no signature that takes them all. */
function write(response: AnyResponse, status: number, headers: Record<string, string>, body?: string | Uint8Array): void {
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  if (body === undefined) response.end();
  else response.end(body);
}

const FRONT_PAGE = `Souk: the backend of a marketplace.
RPCs are at /<package>.<Service>/<Method>, over Connect, gRPC and gRPC-Web, as JSON or protobuf:
  curl --json '{}' $HOST/marketplace.catalog.v1.CatalogService/ListCategories
The contract is in proto/, and asked of grpc.reflection.v1. Health: /healthz, /readyz, grpc.health.v1.
`;

/** The few pages that are not RPCs. `/healthz` says that the process lives, `/readyz` that it takes calls. */
function plainPage(path: string, request: AnyRequest, response: AnyResponse, health: HealthState): void {
  const reads = request.method === "GET" || request.method === "HEAD";
  if (!reads || (path !== "/" && path !== "/healthz" && path !== "/readyz")) {
    refuse(request, response, statusFailure(404, path), 404);
    return;
  }
  const waiting = health.waitingFor();
  const ready = path !== "/readyz" || health.ready();
  const text =
    path === "/" ? FRONT_PAGE : ready ? "ok\n" : waiting.length === 0 ? "stopping\n" : `waiting for ${waiting.join(", ")}\n`;
  const headers = { "content-type": "text/plain; charset=utf-8", "cache-control": "no-store" };
  write(response, ready ? 200 : 503, headers, request.method === "HEAD" ? undefined : text);
}

/** Lets web pages of the given origins call. Answers whether the request was a preflight and is done. */
function createCors(origins: readonly string[]): (request: AnyRequest, response: AnyResponse) => boolean {
  const allowed = new Set(origins);
  const isAllowed = (origin: string) =>
    allowed.has(origin) || (allowed.has("localhost") && /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/.test(origin));
  const allowHeaders = [...cors.allowedHeaders, "Authorization"].join(", ");
  return (request, response) => {
    const { origin } = request.headers;
    if (origin === undefined || allowed.size === 0) return false;
    response.setHeader("vary", "origin");
    const preflight = request.method === "OPTIONS" && request.headers["access-control-request-method"] !== undefined;
    if (isAllowed(origin)) {
      response.setHeader("access-control-allow-origin", origin);
      response.setHeader("access-control-expose-headers", cors.exposedHeaders.join(", "));
      if (preflight) {
        response.setHeader("access-control-allow-methods", cors.allowedMethods.join(", "));
        response.setHeader("access-control-allow-headers", allowHeaders);
        response.setHeader("access-control-max-age", "7200");
      }
    }
    if (preflight) write(response, 204, {});
    return preflight;
  };
}

function pathOf(request: AnyRequest): string {
  return (request.url ?? "/").split("?", 1)[0] as string;
}
