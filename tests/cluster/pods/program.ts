// What runs in the pods of the guarded mesh (guarded.ts), alone: it gets to them as one file. `serve` answers whatever it is asked and tells what reached it; `ask` makes
// calls and prints what became of them.

import { type ClientHttp2Session, connect, createServer, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { connect as connectTcp } from "node:net";

/** How a call is made: over gRPC, as Connect with POST or GET; or whether something answers HTTP without TLS. */
export type Kind = "grpc" | "post" | "get" | "plain";

/** Calls that are made at once. */
export interface Asked {
  /** Such as http://souk-order:8080. */
  readonly url: string;
  readonly paths: readonly string[];
  readonly kinds: readonly Kind[];
  readonly headers?: Readonly<Record<string, string>>;
  /** How often each is made, one after the other; once unless given. */
  readonly times?: number;
}

/** What became of one call. */
export interface Answered {
  readonly path: string;
  readonly kind: Kind;
  /** The status of HTTP; 0 where nothing answered. */
  readonly status: number;
  readonly grpcStatus?: string | undefined;
  /** What an error says, or why nothing answered. */
  readonly message: string;
  /** Who answered and which headers reached him, where it was `serve` and the call has `x-lab-tell`. */
  readonly from?: string | undefined;
  readonly seen?: IncomingHttpHeaders | undefined;
  /** How often a call with this `x-lab-id` has reached him. */
  readonly count?: number | undefined;
}

const EMPTY_FRAME = Buffer.alloc(5);
const MAX_MS = 15_000;

function serve(name: string, port: number, fails: boolean): void {
  const counts = new Map<string, number>();
  const server = createServer();
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    stream.on("error", () => {});
    const id = String(headers["x-lab-id"] ?? "");
    const count = (counts.get(id) ?? 0) + 1;
    if (id !== "") counts.set(id, count);
    const seen = Buffer.from(JSON.stringify(headers)).toString("base64");
    const told = {
      "x-lab-from": name,
      "x-lab-count": count,
      ...(headers["x-lab-tell"] === undefined ? {} : { "x-lab-seen": seen }),
    };
    if (headers["x-lab-fails"] === "always" || (fails && headers["x-lab-fails"] === "half")) {
      refuse(stream, headers, told);
      return;
    }
    answer(stream, headers, told);
  });
  server.on("sessionError", () => {});
  server.listen(port, "0.0.0.0");
}

function refuse(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, told: object): void {
  const type = headers["content-type"] ?? "";
  if (type.startsWith("application/grpc")) {
    stream.respond({ ":status": 200, "content-type": type, "grpc-status": "14", ...told }, { endStream: true });
    return;
  }
  stream.respond({ ":status": 503, "content-type": "application/json", ...told });
  stream.end('{"code":"unavailable"}');
}

function answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, told: object): void {
  const type = headers["content-type"] ?? "application/json";
  if (!type.startsWith("application/grpc")) {
    stream.respond({ ":status": 200, "content-type": type, ...told });
    stream.end(type.includes("json") ? "{}" : "");
    return;
  }
  stream.respond({ ":status": 200, "content-type": type, ...told }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.resume();
  // A stream goes on as long as its caller asks for, with a message now and then.
  const endTime = Date.now() + Number(headers["x-lab-stream-ms"] ?? 0);
  const next = () => {
    if (stream.closed || stream.destroyed) return;
    stream.write(EMPTY_FRAME);
    if (Date.now() < endTime) setTimeout(next, 250);
    else stream.end();
  };
  next();
}

async function ask(asked: readonly Asked[]): Promise<Answered[]> {
  const all = await Promise.all(asked.map(askOne));
  return all.flat();
}

async function askOne({ url, paths, kinds, headers = {}, times = 1 }: Asked): Promise<Answered[]> {
  const session = connect(url);
  session.on("error", () => {});
  const calls = paths.flatMap((path) => kinds.map((kind) => ({ path, kind })));
  const repeated = async (path: string, kind: Kind): Promise<Answered[]> => {
    const answers: Answered[] = [];
    for (let each = 0; each < times; each++)
      answers.push(await (kind === "plain" ? plain(url, path) : call(session, path, kind, headers)));
    return answers;
  };
  const answers = await Promise.all(calls.map(({ path, kind }) => repeated(path, kind)));
  session.destroy();
  return answers.flat();
}

const FORMS = {
  grpc: { ":method": "POST", "content-type": "application/grpc", te: "trailers" },
  post: { ":method": "POST", "content-type": "application/json" },
  get: { ":method": "GET" },
} as const;

function call(
  session: ClientHttp2Session,
  path: string,
  kind: Exclude<Kind, "plain">,
  headers: Readonly<Record<string, string>>,
): Promise<Answered> {
  return new Promise((resolve) => {
    const nothing = (error?: Error) => resolve({ path, kind, status: 0, message: error?.message ?? "the stream ended" });
    if (session.destroyed) {
      nothing(new Error("the connection is gone"));
      return;
    }
    const target = kind === "get" ? `${path}?connect=v1&encoding=json&message=%7B%7D` : path;
    const stream = session.request({ ":path": target, ...FORMS[kind], ...headers });
    stream.setTimeout(MAX_MS, () => stream.close());
    let head: IncomingHttpHeaders & { ":status"?: number | undefined } = {};
    let trailers: IncomingHttpHeaders = {};
    let body = "";
    stream.on("response", (received) => {
      head = received;
    });
    stream.on("trailers", (received) => {
      trailers = received;
    });
    stream.setEncoding("utf8").on("data", (chunk) => {
      body += chunk;
    });
    stream.on("error", nothing);
    stream.on("close", () => {
      if (head[":status"] === undefined) {
        nothing();
        return;
      }
      const all: IncomingHttpHeaders = { ...head, ...trailers };
      const seen = all["x-lab-seen"];
      resolve({
        path,
        kind,
        status: Number(head[":status"]),
        grpcStatus: all["grpc-status"] as string | undefined,
        message: String(all["grpc-message"] ?? body).slice(0, 300),
        from: all["x-lab-from"] as string | undefined,
        count: all["x-lab-count"] === undefined ? undefined : Number(all["x-lab-count"]),
        seen: seen === undefined ? undefined : JSON.parse(Buffer.from(String(seen), "base64").toString()),
      });
    });
    stream.end(kind === "grpc" ? EMPTY_FRAME : kind === "post" ? "{}" : undefined);
  });
}

/** Whether something answers that begins without TLS: with anything at all, also a refusal. */
function plain(url: string, path: string): Promise<Answered> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connectTcp(Number(port), hostname);
    const end = (status: number, message: string) => {
      socket.destroy();
      resolve({ path, kind: "plain", status, message });
    };
    socket.setTimeout(MAX_MS, () => end(0, "nothing came"));
    socket.on("connect", () => socket.write(`POST ${path} HTTP/1.1\r\nhost: ${hostname}\r\ncontent-length: 0\r\n\r\n`));
    socket.on("data", (data) => end(Number(/^HTTP\/1\.1 (\d+)/.exec(data.toString())?.[1] ?? 0), data.toString().slice(0, 100)));
    socket.on("error", (error) => end(0, error.message));
    socket.on("end", () => end(0, "cut off"));
  });
}

const [, , mode, ...rest] = process.argv;
if (mode === "serve") {
  const [name = "", port = "8080", fails] = rest;
  serve(name, Number(port), fails === "fails");
}
if (mode === "ask") {
  const text = JSON.stringify(await ask(JSON.parse(rest[0] ?? "[]") as Asked[]));
  process.stdout.write(text, () => process.exit());
}
