import { IncomingMessage } from "node:http";
import { Http2ServerResponse } from "node:http2";
import type { DescMethod } from "@bufbuild/protobuf";
import { type ConnectError, createContextValues } from "@connectrpc/connect";
import type { UniversalHandler, UniversalServerRequest, UniversalServerResponse } from "@connectrpc/connect/protocol";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from "@connectrpc/connect-node";
import { DEADLINE_EXCEEDED, failure, MALFORMED_REQUEST } from "#runtime/errors.ts";
import { type Arrival, arrivalKey } from "#runtime/interceptors.ts";
import type { AnyRequest, AnyResponse } from "#runtime/listener.ts";
import { statusFailure } from "#runtime/refusals.ts";
import { grpcStatus, spelled } from "#runtime/rpc/grpc-status.ts";

/** Serves a stream through the library. Rejects when its answer cannot be written. */
export async function serveStream(
  handler: UniversalHandler,
  request: AnyRequest,
  response: AnyResponse,
  { bodyTimeoutMs, bare }: { bodyTimeoutMs: number; bare: boolean },
): Promise<void> {
  const values = createContextValues();
  let universal: UniversalServerRequest;
  try {
    universal = universalRequestFromNodeRequest(request, response as never, undefined, values);
  } catch {
    refuse(request, response, failure(MALFORMED_REQUEST, { message: "The request names no host." }));
    return;
  }
  forgetEndless(universal.header);
  const answer = await handler({
    ...universal,
    body: inTime(request, handler.method, () => values.get(arrivalKey), bodyTimeoutMs),
  });
  if (answer.status !== 200 && answer.body === undefined) {
    if (answer.status === 405) response.setHeader("allow", handler.allowedMethods.join(", "));
    refuseStatus(request, response, answer.status, bare);
    return;
  }
  if (await writeTrailersOnly(answer, response)) return;
  await universalResponseToNodeResponse(answer, response as never);
}

/** The longest delay that a timer takes, in ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000 };

/** Takes away a timeout that is longer than a timer takes: the library's would be over at once. The stream's age bounds it all the same. */
function forgetEndless(headers: Headers): void {
  const [, amount, unit] = /^(\d{1,8})([HMS])$/.exec(headers.get("grpc-timeout") ?? "") ?? [];
  if (Number(amount) * (UNIT_MS[unit as string] ?? 0) > MAX_TIMER_MS) headers.delete("grpc-timeout");
  const ms = headers.get("connect-timeout-ms") ?? "";
  if (/^\d{1,10}$/.test(ms) && Number(ms) > MAX_TIMER_MS) headers.delete("connect-timeout-ms");
}

/** A body that fails when it does not arrive within the call's deadline and the server's patience. What nobody reads of it is thrown away. */
async function* inTime(
  request: AnyRequest,
  method: DescMethod,
  arrival: () => Arrival | undefined,
  bodyTimeoutMs: number,
): AsyncGenerator<Uint8Array> {
  // A stream's messages come when they come; its age bounds it.
  const patience = method.methodKind === "server_streaming" ? bodyTimeoutMs : Infinity;
  const leftMs = Math.min(patience, (arrival()?.deadline ?? Infinity) - Date.now());
  // The library's own way destroys a request that is not read to its end, and the connection before the answer with it.
  const iterator = request.iterator({ destroyOnReturn: false });
  let late: (error: ConnectError) => void = () => {};
  const timeout = new Promise<never>((_, reject) => {
    late = reject;
  });
  timeout.catch(() => {});
  const timer =
    leftMs > 0x7fffffff
      ? undefined
      : setTimeout(() => late(failure(DEADLINE_EXCEEDED, { message: "The request did not arrive in time." })), Math.max(0, leftMs));
  // A stream may end whose request nobody read to its end: that holds up neither memory nor the end of the process.
  timer?.unref();
  request.once("close", () => clearTimeout(timer));
  try {
    for (;;) {
      const chunk = await Promise.race([iterator.next(), timeout]);
      if (chunk.done === true) return;
      yield chunk.value;
    }
  } finally {
    clearTimeout(timer);
    // The next request over HTTP/1.1 stands behind the rest of this one.
    const resume = () => request instanceof IncomingMessage && request.resume();
    iterator.return?.().then(resume, () => {});
  }
}

/** What the protocol itself puts before the messages of an answer. */
const PROTOCOL_HEADERS = new Set(["content-type", "grpc-encoding", "grpc-accept-encoding"]);

/**
 * Writes a gRPC error without messages as Trailers-Only: headers that end the stream. A proxy that retries on a status looks for it there
 * and nowhere else. Answers whether it did.
 */
async function writeTrailersOnly(answer: UniversalServerResponse, response: AnyResponse): Promise<boolean> {
  const { trailer, body } = answer;
  if (!(response instanceof Http2ServerResponse) || trailer === undefined || body === undefined) return false;
  // Clients take all headers of such an answer for trailers.
  if ([...new Headers(answer.header).keys()].some((name) => !PROTOCOL_HEADERS.has(name))) return false;
  const iterator = body[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done !== true) {
    // Put the message back in front of the others.
    answer.body = (async function* () {
      yield first.value;
      yield* { [Symbol.asyncIterator]: () => iterator };
      spelled(trailer);
    })();
    return false;
  }
  if (response.stream.destroyed) return true;
  const headers = new Headers(answer.header);
  headers.delete("grpc-encoding");
  spelled(trailer).forEach((value, name) => {
    headers.set(name, value);
  });
  response.stream.respond({ ...response.getHeaders(), ":status": 200, ...Object.fromEntries(headers) }, { endStream: true });
  return true;
}

/** Answers an error that no handler answered, in the form of the protocol that the request speaks. */
export function refuse(request: AnyRequest, response: AnyResponse, error: ConnectError, status?: number): void {
  const type = request.headers["content-type"] ?? "";
  if (/^application\/grpc/.test(type)) {
    const trailer = grpcStatus(error);
    write(response, 200, { "content-type": type, ...Object.fromEntries(trailer) });
    return;
  }
  const headers = { ...Object.fromEntries(error.metadata), "content-type": "application/json", "cache-control": "no-store" };
  const body = request.method === "HEAD" ? undefined : errorToJsonBytes(error, undefined);
  write(response, status ?? codeToHttpStatus(error.code), headers, body);
}

/** Refuses what is in no protocol; bare is the status alone. */
export function refuseStatus(request: AnyRequest, response: AnyResponse, status: number, bare: boolean): void {
  if (bare) write(response, status, {});
  else refuse(request, response, statusFailure(status, pathOf(request)), status);
}

/** Sets each header by itself: the two kinds of response agree on no signature that takes them all. */
export function write(response: AnyResponse, status: number, headers: Record<string, string>, body?: string | Uint8Array): void {
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  if (body === undefined) response.end();
  else response.end(body);
}

/** The path of a request without its query. */
export function pathOf(request: AnyRequest): string {
  return (request.url ?? "/").split("?", 1)[0] as string;
}
