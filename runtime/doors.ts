import { once } from "node:events";
import type { AnyRequest, AnyResponse } from "#runtime/listener.ts";
import type { Log } from "#runtime/log.ts";
import type { Door } from "#runtime/service.ts";

/** The largest body a door takes, in bytes. */
const MAX_BODY_BYTES = 65_536;
/** How long a door may take, the arrival of the body included, in ms. */
const TIMEOUT_MS = 10_000;

/** Serves the doors that are not RPCs. Answers whether one of them stands at the request's path and method. */
export function createDoors(doors: readonly Door[], log: Log): (request: AnyRequest, response: AnyResponse) => boolean {
  for (const door of doors) {
    if (!/^(\/[\w.-]+)+\/?$/.test(door.path)) {
      throw new Error(`The door's path "${door.path}" does not begin with a slash, or has empty parts.`);
    }
  }
  return (request, response) => {
    const path = request.url ?? "/";
    const method = request.method === "HEAD" ? "GET" : request.method;
    const door = doors.find((candidate) => candidate.method === method && stands(candidate.path, path));
    if (door === undefined) return false;
    open(door, request, response, log).catch((error: unknown) => log.debug({ err: error }, "a door's answer could not be written"));
    return true;
  };
}

function stands(at: string, path: string): boolean {
  return at.endsWith("/") ? path.startsWith(at) : path === at || path.startsWith(`${at}?`);
}

async function open(door: Door, request: AnyRequest, response: AnyResponse, log: Log): Promise<void> {
  const startTime = performance.now();
  const { status, headers, body } = await answerOf(door, request, log);
  log.info({ door: door.path, code: status, ms: Math.round((performance.now() - startTime) * 100) / 100 });
  if (response.destroyed) return;
  response.statusCode = status;
  for (const [name, value] of headers) response.setHeader(name, value);
  const finished = once(response, "close");
  if (request.method === "HEAD") response.end();
  else response.end(body);
  await finished;
}

interface Answer {
  readonly status: number;
  readonly headers: Iterable<[string, string]>;
  readonly body: Uint8Array | string;
}

async function answerOf(door: Door, request: AnyRequest, log: Log): Promise<Answer> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const late = new Promise<"late">((resolve) => signal.addEventListener("abort", () => resolve("late"), { once: true }));
  try {
    const body = await Promise.race([bodyOf(request), late]);
    if (body === "late") return plain(408, "The request did not arrive in time.\n");
    if (body === "too large") return plain(413, `The body is larger than ${MAX_BODY_BYTES} bytes.\n`);
    const response = await Promise.race([door.handle(webRequest(request, body, signal)), late]);
    if (response === "late") return plain(503, "This took too long.\n");
    return { status: response.status, headers: response.headers, body: new Uint8Array(await response.arrayBuffer()) };
  } catch (error) {
    log.error({ err: error, door: door.path }, "a door failed");
    return plain(500, "Something went wrong on our side.\n");
  }
}

function plain(status: number, body: string): Answer {
  return { status, headers: [["content-type", "text/plain; charset=utf-8"]], body };
}

async function bodyOf(request: AnyRequest): Promise<Buffer<ArrayBuffer> | "too large"> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BODY_BYTES) return "too large";
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function webRequest(request: AnyRequest, body: Buffer<ArrayBuffer>, signal: AbortSignal): Request {
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    // The names with a colon are HTTP/2's own.
    if (!name.startsWith(":") && value !== undefined) headers.set(name, Array.isArray(value) ? value.join(", ") : value);
  }
  const method = request.method ?? "GET";
  const hasBody = method !== "GET" && method !== "HEAD";
  return new Request(new URL(request.url ?? "/", `http://${hostOf(request)}`), {
    method,
    headers,
    signal,
    ...(hasBody ? { body } : {}),
  });
}

function hostOf(request: AnyRequest): string {
  const host = "authority" in request ? request.authority : request.headers.host;
  return host !== undefined && /^[\w.:[\]-]+$/.test(host) ? host : "localhost";
}
