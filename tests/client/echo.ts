import { once } from "node:events";
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { create, createFileRegistry, toBinary } from "@bufbuild/protobuf";
import type { GenService } from "@bufbuild/protobuf/codegenv2";
import {
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  file_google_protobuf_wrappers,
  MethodOptions_IdempotencyLevel as Level,
  type StringValue,
  StringValueSchema,
} from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { compressionGzip, connectNodeAdapter } from "@connectrpc/connect-node";
import { listen } from "#runtime/listener.ts";
import { silentLog } from "#runtime/log.ts";

type Kind = "unary" | "server_streaming" | "client_streaming" | "bidi_streaming";
interface Of<K extends Kind> {
  methodKind: K;
  input: typeof StringValueSchema;
  output: typeof StringValueSchema;
}

/** A contract with a method of each kind. A question has no side effects, a setting is idempotent, a command is neither. */
type EchoService = GenService<{
  ask: Of<"unary">;
  set: Of<"unary">;
  command: Of<"unary">;
  list: Of<"server_streaming">;
  collect: Of<"client_streaming">;
  talk: Of<"bidi_streaming">;
}>;

const text = ".google.protobuf.StringValue";
const rpc = (name: string, level: Level, clientStreaming = false, serverStreaming = false) => ({
  name,
  inputType: text,
  outputType: text,
  clientStreaming,
  serverStreaming,
  options: { idempotencyLevel: level },
});
const file = create(FileDescriptorProtoSchema, {
  name: "souk/test/echo.proto",
  package: "souk.test",
  syntax: "proto3",
  dependency: [file_google_protobuf_wrappers.proto.name],
  messageType: [{ name: "Unused", field: [{ name: "one", number: 1, type: FieldDescriptorProto_Type.STRING }] }],
  service: [
    {
      name: "Echo",
      method: [
        rpc("Ask", Level.NO_SIDE_EFFECTS),
        rpc("Set", Level.IDEMPOTENT),
        rpc("Command", Level.IDEMPOTENCY_UNKNOWN),
        rpc("List", Level.NO_SIDE_EFFECTS, false, true),
        rpc("Collect", Level.IDEMPOTENCY_UNKNOWN, true, false),
        rpc("Talk", Level.IDEMPOTENCY_UNKNOWN, true, true),
      ],
    },
  ],
});
const registry = createFileRegistry(file, () => file_google_protobuf_wrappers.proto);
export const Echo = registry.getService("souk.test.Echo") as unknown as EchoService;

/** A server of the contract as the RPC library makes it, over HTTP/1.1 and HTTP/2. */
export async function echoServer(handlers: Partial<ServiceImpl<EchoService>>): Promise<{ url: string; stop(): Promise<void> }> {
  const adapter = connectNodeAdapter({
    routes: (router) => router.service(Echo, handlers),
    acceptCompression: [compressionGzip],
    compressMinBytes: 1024,
  });
  const listener = await listen({ port: 0, host: "127.0.0.1", handler: adapter, log: silentLog() });
  return { url: `http://127.0.0.1:${listener.port}`, stop: () => listener.close(0) };
}

/** An HTTP/2 server that does as a test says. */
export async function rawServer(
  set: (server: Http2Server) => unknown,
  port = 0,
): Promise<{ url: string; port: number; sessions: Set<ServerHttp2Session>; stop(): Promise<void> }> {
  const server = createServer();
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => {});
    session.once("close", () => sessions.delete(session));
  });
  server.on("stream", (stream) => void stream.on("error", () => {}));
  set(server);
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const listening = (server.address() as AddressInfo).port;
  return {
    url: `http://127.0.0.1:${listening}`,
    port: listening,
    sessions,
    async stop() {
      const closed = once(server, "close");
      server.close();
      for (const session of sessions) session.destroy();
      await closed;
    },
  };
}

/** A message as it is framed on the wire. */
export function framed(value: string): Buffer {
  const bytes = toBinary(StringValueSchema, create(StringValueSchema, { value }));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** Answers a stream well. */
export function answer(stream: ServerHttp2Stream, value = "well"): void {
  if (stream.destroyed) return;
  stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(framed(value));
}

/** Answers a stream with a status, in headers that end it. */
export function refuse(stream: ServerHttp2Stream, status: number, headers: Record<string, string> = {}): void {
  if (stream.destroyed) return;
  stream.respond(
    { ":status": 200, "content-type": "application/grpc+proto", "grpc-status": String(status), ...headers },
    { endStream: true },
  );
}

/** The texts of a stream. */
export async function texts(messages: AsyncIterable<StringValue>): Promise<string[]> {
  const all: string[] = [];
  for await (const { value } of messages) all.push(value);
  return all;
}
