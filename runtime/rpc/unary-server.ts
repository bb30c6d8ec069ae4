import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { ConnectError } from "@connectrpc/connect";
import { errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { statusFailure } from "#runtime/refusals.ts";
import { connectGetWires, connectWires, queryOf } from "#runtime/rpc/connect.ts";
import { type Exchange, Http1Exchange, Http2Exchange, type WrittenHeaders } from "#runtime/rpc/exchange.ts";
import { grpcWires } from "#runtime/rpc/grpc.ts";
import { grpcStatus } from "#runtime/rpc/grpc-status.ts";
import { HttpCall, type Port, type Wire } from "#runtime/rpc/http-call.ts";
import type { UnaryMethod } from "#runtime/rpc/method.ts";

/** What a server of unary calls is made of. */
export interface UnaryServerOptions extends Port {
  /** The unary method at a path without its query; undefined where there is none. */
  find(path: string, headers: IncomingHttpHeaders): UnaryMethod | undefined;
  /** Counts a call in, or answers why it is turned away. Each call that was counted in is `done` once. */
  begin(rpc: UnaryMethod, headers: IncomingHttpHeaders): ConnectError | undefined;
  /** Whether what is in no protocol gets the HTTP status and no more. */
  readonly bare: boolean;
}

/** Serves unary calls of Connect, gRPC and gRPC-Web. Each `take` answers whether the request was one and is taken care of. */
export interface UnaryServer {
  takeStream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): boolean;
  takeRequest(request: IncomingMessage, response: ServerResponse): boolean;
}

/** A server of unary calls. It knows protocols and duties, and no service. */
export function createUnaryServer(options: UnaryServerOptions): UnaryServer {
  const find = (target: string, headers: IncomingHttpHeaders) =>
    options.find(target, headers) ?? (target.includes("?") ? options.find(pathOf(target), headers) : undefined);
  return {
    takeStream(stream, headers) {
      const target = headers[":path"];
      const rpc = target === undefined ? undefined : find(target as string, headers);
      // What asks for permissions only is no call.
      if (rpc === undefined || headers[":method"] === "OPTIONS") return false;
      // Given up as soon as it was begun, as in a flood of resets: not worth looking at.
      if (stream.destroyed || stream.closed) return true;
      if (headers.expect === "100-continue") stream.additionalHeaders({ ":status": 100 });
      serve(rpc, new Http2Exchange(stream, headers), options);
      return true;
    },
    takeRequest(request, response) {
      const rpc = find(request.url as string, request.headers);
      if (rpc === undefined || request.method === "OPTIONS") return false;
      serve(rpc, new Http1Exchange(request, response), options);
      return true;
    },
  };
}

function pathOf(target: string): string {
  const at = target.indexOf("?");
  return at < 0 ? target : target.slice(0, at);
}

function serve(rpc: UnaryMethod, exchange: Exchange, options: UnaryServerOptions): void {
  const wire = negotiate(rpc, exchange);
  if (typeof wire === "number") {
    misspoken(rpc, exchange, wire, options);
    return;
  }
  const refusal = options.begin(rpc, exchange.headers);
  const call = new HttpCall(rpc, exchange, wire, refusal === undefined ? options : { ...options, done() {} });
  if (refusal === undefined) call.start();
  else call.turnAway(refusal);
}

const WIRES: ReadonlyMap<string, Wire> = new Map([...grpcWires, ...connectWires]);

/** The protocol that a request speaks, or the HTTP status of one that speaks none. */
function negotiate(rpc: UnaryMethod, exchange: Exchange): Wire | number {
  switch (exchange.httpMethod) {
    case "POST": {
      const type = exchange.headers["content-type"] ?? "";
      return WIRES.get(type) ?? WIRES.get(type.toLowerCase().replace(/; ?charset=utf-?8$/, "")) ?? 415;
    }
    case "GET":
      if (!rpc.readsOnly) return 405;
      return connectGetWires.get(queryOf(exchange.target).get("encoding") ?? "") ?? 415;
    default:
      return 405;
  }
}

/** Answers what is in no protocol, in the form of the simplest. */
function misspoken(rpc: UnaryMethod, exchange: Exchange, status: number, options: UnaryServerOptions): void {
  exchange.receiver = { received() {}, overflowed() {}, closed() {} };
  if (options.bare) {
    exchange.respond(status, {});
    return;
  }
  const error = statusFailure(status, pathOf(exchange.target));
  const { origin, "content-type": type = "" } = exchange.headers;
  const headers: WrittenHeaders = { ...(origin === undefined ? undefined : options.corsHeaders(origin)) };
  if (type.startsWith("application/grpc")) {
    exchange.respond(200, { ...headers, "content-type": type, ...Object.fromEntries(grpcStatus(error)) });
    return;
  }
  const body = errorToJsonBytes(error, undefined);
  Object.assign(headers, { "content-type": "application/json", "content-length": body.length, "cache-control": "no-store" });
  if (status === 405) headers.allow = rpc.readsOnly ? "GET, POST" : "POST";
  exchange.respond(status, headers, exchange.httpMethod === "HEAD" ? undefined : body);
}
