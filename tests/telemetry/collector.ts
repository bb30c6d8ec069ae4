import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

/** A span as a collector is told of it. */
export interface ToldSpan {
  /** The process' name, and which of those with that name. */
  readonly process: string;
  readonly instance: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly name: string;
  /** 1 internal, 2 server, 3 client, 4 producer, 5 consumer. */
  readonly kind: number;
  readonly attributes: ReadonlyMap<string, string>;
  /** 0 unset, 2 error. */
  readonly status: number;
  readonly statusMessage: string;
}

/** A collector of OpenTelemetry's protocol (protobuf over HTTP) that a test can let go away. */
export interface Collector {
  readonly endpoint: string;
  readonly spans: readonly ToldSpan[];
  /** The names of the measurements that came. */
  readonly metrics: ReadonlySet<string>;
  readonly headers: readonly Readonly<Record<string, unknown>>[];
  /** Requests that came, answered or not. */
  readonly requests: number;
  /** From now on it takes everything, never answers, or answers that it cannot now. */
  behave(how: "takes" | "hangs" | "refuses"): void;
  /** Closes the port and cuts all connections. */
  die(): Promise<void>;
}

/** Starts a collector on a free port, or on the one that a dead one had. */
export async function startCollector(port = 0): Promise<Collector> {
  const spans: ToldSpan[] = [];
  const metrics = new Set<string>();
  const headers: Record<string, unknown>[] = [];
  const hanging = new Set<ServerResponse>();
  let how: "takes" | "hangs" | "refuses" = "takes";
  let requests = 0;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    requests++;
    headers.push(request.headers);
    if (how === "hangs") {
      hanging.add(response);
      return;
    }
    if (how === "takes") {
      const body = Buffer.concat(chunks);
      const bytes = request.headers["content-encoding"] === "gzip" ? gunzipSync(body) : body;
      if (request.url === "/v1/traces") spans.push(...spansIn(bytes));
      if (request.url === "/v1/metrics") for (const name of metricsIn(bytes)) metrics.add(name);
    }
    response.statusCode = how === "takes" ? 200 : 503;
    response.end();
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    metrics,
    headers,
    get requests() {
      return requests;
    },
    behave(next) {
      how = next;
      if (how !== "hangs") for (const response of hanging) response.destroy();
    },
    async die() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

type Fields = ReadonlyMap<number, readonly (Uint8Array | bigint | number)[]>;

/** The fields of a message by their numbers: enough of protobuf to read what is sent, and none of the sender's code. */
function fieldsOf(bytes: Uint8Array): Fields {
  const reader = new BinaryReader(bytes);
  const fields = new Map<number, (Uint8Array | bigint | number)[]>();
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    const value =
      type === WireType.LengthDelimited
        ? reader.bytes()
        : type === WireType.Varint
          ? BigInt(reader.uint64())
          : type === WireType.Bit64
            ? BigInt(reader.fixed64())
            : reader.fixed32();
    fields.set(number, [...(fields.get(number) ?? []), value]);
  }
  return fields;
}

const messages = (fields: Fields, number: number) => (fields.get(number) ?? []).map((value) => fieldsOf(value as Uint8Array));
const bytesOf = (fields: Fields, number: number) => (fields.get(number)?.[0] ?? new Uint8Array()) as Uint8Array;
const text = (fields: Fields, number: number) => Buffer.from(bytesOf(fields, number)).toString();
const hex = (fields: Fields, number: number) => Buffer.from(bytesOf(fields, number)).toString("hex");

function attributesOf(fields: Fields, number: number): Map<string, string> {
  return new Map(
    messages(fields, number).map((pair) => {
      const [value] = messages(pair, 2);
      const known = value?.has(1) ? text(value, 1) : [...(value?.values() ?? [])].flat().join(",");
      return [text(pair, 1), known];
    }),
  );
}

function spansIn(bytes: Uint8Array): ToldSpan[] {
  return messages(fieldsOf(bytes), 1).flatMap((ofProcess) => {
    const [resource] = messages(ofProcess, 1);
    const about = resource === undefined ? new Map<string, string>() : attributesOf(resource, 1);
    const spans = messages(ofProcess, 2).flatMap((ofScope) => messages(ofScope, 2));
    return spans.map((span) => {
      const [status] = messages(span, 15);
      return {
        process: about.get("service.name") ?? "",
        instance: about.get("service.instance.id") ?? "",
        traceId: hex(span, 1),
        spanId: hex(span, 2),
        parentSpanId: hex(span, 4),
        name: text(span, 5),
        kind: Number(span.get(6)?.[0] ?? 0),
        attributes: attributesOf(span, 9),
        status: Number(status?.get(3)?.[0] ?? 0),
        statusMessage: status === undefined ? "" : text(status, 2),
      };
    });
  });
}

function metricsIn(bytes: Uint8Array): string[] {
  const scopes = messages(fieldsOf(bytes), 1).flatMap((ofProcess) => messages(ofProcess, 2));
  return scopes.flatMap((scope) => messages(scope, 2)).map((metric) => text(metric, 1));
}
