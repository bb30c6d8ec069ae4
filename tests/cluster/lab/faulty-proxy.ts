import { createHash } from "node:crypto";
import {
  type ClientHttp2Session,
  connect,
  constants,
  createServer,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";

/** What goes wrong with a call on purpose. */
export interface Fault {
  /**
   * `unavailable`: is answered so, and nothing is done. `drop`: is done, and its answer is lost. `hold`: is done, and answered `ms` later. `late`: is begun `ms` later, even if
   * its caller has gone by then.
   */
  readonly kind: "unavailable" | "drop" | "hold" | "late";
  /** Which attempts of a call: those up to this one. */
  readonly attempts: number;
  readonly ms: number;
}

/** One attempt of a call as it reached the workload. */
export interface Attempt {
  readonly path: string;
  /** The same for all attempts of a call. */
  readonly requestId: string;
  /** Which of the call's attempts the proxy before it says it is. */
  readonly attempt: number;
  /** The time that the caller gives, as its protocol writes it. */
  readonly timeout: string | undefined;
  readonly beginTime: number;
  endTime?: number;
  /** How it ended: answered, turned away or dropped by us, or given up by the caller. */
  outcome?: "answered" | "unavailable" | "dropped" | "given up";
  /** Whether what was answered is no error. */
  ok?: boolean;
  /** Of the answer's message, also of one that was dropped or given up. */
  answerHash?: string;
}

/** A proxy that makes faults. */
export interface FaultyProxy {
  /** What befalls all calls that name no fault of their own. */
  fault: Fault | undefined;
  /** The latest attempts. */
  readonly attempts: Attempt[];
  /** How many attempts there were, by path. */
  readonly counts: Record<string, number>;
  forget(): void;
}

/** A call names its own fault in this header, such as `drop:1` or `hold:1:1500`. */
export const FAULT_HEADER = "x-lab-fault";

const MAX_ATTEMPTS_KEPT = 2_000;

/** Stands before an HTTP/2 server of unary calls and loses, delays or refuses what it is told to. */
export function startFaultyProxy({ port, upstream }: { readonly port: number; readonly upstream: string }): FaultyProxy {
  let session: ClientHttp2Session | undefined;
  const behind = () => {
    if (session === undefined || session.closed || session.destroyed) {
      session = connect(upstream);
      session.on("error", () => {});
    }
    return session;
  };
  const server = createServer();
  const proxy: FaultyProxy = {
    fault: undefined,
    attempts: [],
    counts: {},
    forget() {
      proxy.attempts.length = 0;
      for (const path of Object.keys(proxy.counts)) delete proxy.counts[path];
    },
  };
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    const seen = note(proxy, headers);
    stream.on("error", () => {});
    stream.once("close", () => {
      seen.endTime ??= Date.now();
      seen.outcome ??= "given up";
    });
    serve(stream, headers, seen, faultOf(headers, seen) ?? proxy.fault, behind).catch(() =>
      stream.close(constants.NGHTTP2_INTERNAL_ERROR),
    );
  });
  server.on("sessionError", () => {});
  server.listen(port, "0.0.0.0");
  return proxy;
}

function note({ attempts, counts }: FaultyProxy, headers: IncomingHttpHeaders): Attempt {
  const path = String(headers[":path"]).replace(/\?.*/s, "");
  const attempt: Attempt = {
    path,
    requestId: String(headers["x-request-id"]),
    attempt: Number(headers["x-envoy-attempt-count"] ?? 1),
    timeout: (headers["grpc-timeout"] ?? headers["connect-timeout-ms"]) as string | undefined,
    beginTime: Date.now(),
  };
  attempts.push(attempt);
  if (attempts.length > MAX_ATTEMPTS_KEPT) attempts.shift();
  counts[path] = (counts[path] ?? 0) + 1;
  return attempt;
}

/** The fault that a call asks for by itself; none when this attempt is beyond it. */
function faultOf(headers: IncomingHttpHeaders, { attempt }: Attempt): Fault | undefined {
  const header = headers[FAULT_HEADER];
  if (header === undefined) return undefined;
  const [kind, attempts, ms = 0] = String(header).split(":");
  return { kind: kind as Fault["kind"], attempts: attempt <= Number(attempts) ? Number(attempts) : 0, ms: Number(ms) };
}

async function serve(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  seen: Attempt,
  asked: Fault | undefined,
  behind: () => ClientHttp2Session,
): Promise<void> {
  const fault = asked !== undefined && seen.attempt <= asked.attempts ? asked : undefined;
  const body: Buffer[] = [];
  for await (const chunk of stream) body.push(chunk as Buffer);
  if (fault?.kind === "unavailable") {
    await sleep(fault.ms);
    seen.outcome ??= "unavailable";
    refuse(stream, headers);
    return;
  }
  if (fault?.kind === "late") await sleep(fault.ms);
  const answer = await forward(stream, headers, Buffer.concat(body), behind(), fault === undefined);
  seen.answerHash = createHash("sha256").update(answer.body).digest("hex");
  if (fault?.kind === "hold") await sleep(fault.ms);
  if (stream.closed || stream.destroyed) return;
  if (fault?.kind === "drop") {
    seen.outcome = "dropped";
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    return;
  }
  seen.outcome = "answered";
  seen.ok = isOk(answer);
  give(stream, answer);
}

function refuse(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
  if (stream.closed || stream.destroyed) return;
  const type = String(headers["content-type"] ?? "application/json");
  if (type.startsWith("application/grpc")) {
    stream.respond({ ":status": 200, "content-type": type, "grpc-status": "14" }, { endStream: true });
    return;
  }
  stream.respond({ ":status": 503, "content-type": "application/json" });
  stream.end('{"code":"unavailable"}');
}

interface WholeAnswer {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly trailers: IncomingHttpHeaders | undefined;
  /** Whether the headers were all of it. */
  readonly bare: boolean;
}

function isOk({ headers, trailers }: WholeAnswer): boolean {
  return Number(headers[":status"]) === 200 && (trailers?.["grpc-status"] ?? headers["grpc-status"] ?? "0") === "0";
}

/** Hands a request on and waits for all of the answer. Who gives the call up ends it behind us, too, unless a fault says that nobody notices. */
function forward(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  body: Buffer,
  session: ClientHttp2Session,
  cancels: boolean,
): Promise<WholeAnswer> {
  return new Promise((resolve, reject) => {
    const inner = session.request({ ...headers, [constants.HTTP2_HEADER_AUTHORITY]: headers[":authority"] ?? "lab" });
    let answer: IncomingHttpHeaders | undefined;
    let trailers: IncomingHttpHeaders | undefined;
    let bare = false;
    const chunks: Buffer[] = [];
    const cancel = () => inner.close(constants.NGHTTP2_CANCEL);
    if (cancels) stream.once("close", cancel);
    inner.on("response", (received, flags) => {
      answer = received;
      bare = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
    });
    inner.on("trailers", (received) => {
      trailers = received;
    });
    inner.on("data", (chunk: Buffer) => chunks.push(chunk));
    inner.on("error", reject);
    inner.on("close", () => {
      stream.off("close", cancel);
      if (answer === undefined || inner.rstCode !== 0) reject(new Error(`no answer: ${inner.rstCode}`));
      else resolve({ headers: answer, body: Buffer.concat(chunks), trailers, bare });
    });
    inner.end(body);
  });
}

function give(stream: ServerHttp2Stream, { headers, body, trailers, bare }: WholeAnswer): void {
  if (bare) {
    stream.respond(headers, { endStream: true });
    return;
  }
  stream.respond(headers, { waitForTrailers: trailers !== undefined });
  if (trailers !== undefined) stream.once("wantTrailers", () => stream.sendTrailers(trailers));
  stream.end(body);
}
