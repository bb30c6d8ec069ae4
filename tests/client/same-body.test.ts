import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  type Client,
  Code,
  ConnectError,
  createClient,
  createRouterTransport,
  decodeBinaryHeader,
  encodeBinaryHeader,
  type HandlerContext,
  type ServiceImpl,
  type Transport,
} from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { createConnectTransport as createWebTransport } from "@connectrpc/connect-web";
import { openGrpcClient } from "#runtime/client/transport.ts";
import { failure, metadataOf, reason, reasonOf } from "#runtime/errors.ts";
import { Echo, echoServer, texts } from "./echo.ts";

const GONE = reason("GONE", Code.FailedPrecondition, "It is gone: for good, 100 %, наверно.");
const MORE = 5;

let last: HandlerContext;
const handlers: Required<Pick<ServiceImpl<typeof Echo>, "ask" | "set" | "command" | "list" | "collect" | "talk">> = {
  async ask({ value }, context) {
    last = context;
    if (value === "gone") throw failure(GONE, { metadata: { since: "1999" } });
    if (value === "wait") await ended(context.signal);
    if (value === "left") return { value: String(context.timeoutMs()) };
    context.responseHeader.set("x-head", context.requestHeader.get("x-said") ?? "");
    context.responseHeader.set("x-head-bin", context.requestHeader.get("x-said-bin") ?? "");
    context.responseTrailer.set("x-trail", "behind");
    return { value: value.startsWith("long") ? value.repeat(2) : `${value}!` };
  },
  set: ({ value }) => ({ value }),
  command: ({ value }) => ({ value }),
  async *list({ value }, context) {
    last = context;
    context.responseHeader.set("x-head", "before");
    context.responseTrailer.set("x-trail", "behind");
    for (let index = 0; index < MORE; index++) yield { value: `${value}${index}` };
    if (value === "gone") throw failure(GONE);
    if (value === "wait") await ended(context.signal);
  },
  async collect(requests) {
    return { value: (await texts(requests)).join(",") };
  },
  async *talk(requests) {
    for await (const { value } of requests) {
      if (value === "gone") throw failure(GONE);
      yield { value: `${value}!` };
    }
  },
};

function ended(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}

async function failed(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.then(
    () => assert.fail("it succeeded"),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ConnectError, String(error));
  return error;
}

/** What carries a client's calls, and whether it can send a stream to the server. */
interface Way {
  readonly name: string;
  readonly sendsStreams: boolean;
  open(url: () => string): { transport: Transport; close?(): void };
}

const WAYS: readonly Way[] = [
  {
    name: "in memory",
    sendsStreams: true,
    open: () => ({ transport: createRouterTransport(({ service }) => service(Echo, handlers)) }),
  },
  {
    name: "over grpc-js",
    sendsStreams: true,
    open(url) {
      const client = openGrpcClient({ baseUrl: url() });
      return { transport: client.transport(), close: () => client.close() };
    },
  },
  {
    name: "over grpc-js with interceptors and compression",
    sendsStreams: true,
    open(url) {
      const client = openGrpcClient({ baseUrl: url(), sendCompression: "gzip" });
      return { transport: client.transport({ interceptors: [(next) => (request) => next(request)] }), close: () => client.close() };
    },
  },
  { name: "over connect-node", sendsStreams: true, open: (url) => ({ transport: createGrpcTransport({ baseUrl: url() }) }) },
  {
    name: "over the browser's transport",
    sendsStreams: false,
    open: (url) => ({ transport: createWebTransport({ baseUrl: url(), useBinaryFormat: true }) }),
  },
];

for (const way of WAYS) {
  describe(`a typed client, ${way.name}`, () => {
    let server: Awaited<ReturnType<typeof echoServer>>;
    let opened: ReturnType<Way["open"]>;
    let client: Client<typeof Echo>;
    before(async () => {
      server = await echoServer(handlers);
      opened = way.open(() => server.url);
      client = createClient(Echo, opened.transport);
    });
    after(async () => {
      opened.close?.();
      await server.stop();
    });

    it("gets an answer, with headers and trailers both ways, binary ones too", async () => {
      let header = new Headers();
      let trailer = new Headers();
      const bytes = Uint8Array.of(0, 255, 128, 7);
      const { value } = await client.ask(
        { value: "hello" },
        {
          headers: { "x-said": "so", "x-said-bin": encodeBinaryHeader(bytes) },
          onHeader(got) {
            header = got;
          },
          onTrailer(got) {
            trailer = got;
          },
        },
      );
      assert.equal(value, "hello!");
      assert.equal(header.get("x-head"), "so");
      assert.deepEqual(decodeBinaryHeader(header.get("x-head-bin") ?? ""), bytes);
      assert.equal(trailer.get("x-trail"), "behind");
    });

    it("sends a long message and gets a longer one", async () => {
      const value = `long${"g".repeat(200_000)}`;
      assert.equal((await client.ask({ value })).value, value.repeat(2));
    });

    it("is refused with a reason, its metadata and its sentence", async () => {
      const error = await failed(client.ask({ value: "gone" }));
      assert.equal(reasonOf(error), "GONE");
      assert.equal(error.code, Code.FailedPrecondition);
      assert.equal(error.rawMessage, GONE.message);
      assert.deepEqual(metadataOf(error), { since: "1999" });
    });

    it("gives the time that is left to the server, and ends when it is over", async () => {
      const left = Number((await client.ask({ value: "left" }, { timeoutMs: 5_000 })).value);
      assert.ok(left > 0 && left <= 5_000, String(left));
      assert.equal((await failed(client.ask({ value: "wait" }, { timeoutMs: 50 }))).code, Code.DeadlineExceeded);
      await new Promise<void>((resolve) => {
        if (last.signal.aborted) resolve();
        else last.signal.addEventListener("abort", () => resolve());
      });
    });

    it("gives up when its caller does, and the server hears of it", async () => {
      const giveUp = new AbortController();
      const call = failed(client.ask({ value: "wait" }, { signal: giveUp.signal }));
      while (last?.signal.aborted !== false) await new Promise(setImmediate);
      giveUp.abort();
      assert.equal((await call).code, Code.Canceled);
      await new Promise<void>((resolve) => {
        if (last.signal.aborted) resolve();
        else last.signal.addEventListener("abort", () => resolve());
      });
    });

    it("makes no call for a caller who has given up already", async () => {
      assert.equal((await failed(client.ask({ value: "wait" }, { signal: AbortSignal.abort() }))).code, Code.Canceled);
    });

    it("reads a stream to its end, with header and trailer", async () => {
      let trailer = new Headers();
      const all = await texts(
        client.list(
          { value: "n" },
          {
            onTrailer(got) {
              trailer = got;
            },
          },
        ),
      );
      assert.deepEqual(all, ["n0", "n1", "n2", "n3", "n4"]);
      assert.equal(trailer.get("x-trail"), "behind");
    });

    it("gets the messages of a stream before the error that ends it", async () => {
      const all: string[] = [];
      const error = await failed(
        (async () => {
          for await (const { value } of client.list({ value: "gone" })) all.push(value);
        })(),
      );
      assert.equal(reasonOf(error), "GONE");
      assert.equal(all.length, MORE);
    });

    it("leaves a stream, and the server hears of it", async () => {
      const leave = new AbortController();
      const error = await failed(
        (async () => {
          for await (const { value } of client.list({ value: "wait" }, { signal: leave.signal })) {
            if (value === `wait${MORE - 1}`) leave.abort();
          }
        })(),
      );
      assert.equal(error.code, Code.Canceled);
      await new Promise<void>((resolve) => {
        if (last.signal.aborted) resolve();
        else last.signal.addEventListener("abort", () => resolve());
      });
    });

    if (!way.sendsStreams) return;

    async function* said(...values: string[]) {
      for (const value of values) yield create(Echo.method.ask.input, { value });
    }

    it("sends a stream and gets one answer", async () => {
      assert.equal((await client.collect(said("a", "b", "c"))).value, "a,b,c");
      const many = Array.from({ length: 300 }, (_, index) => String(index).repeat(100));
      assert.equal((await client.collect(said(...many))).value, many.join(","));
    });

    it("talks both ways at once", async () => {
      const heard = Promise.withResolvers<void>();
      async function* questions() {
        yield { value: "one" };
        await heard.promise;
        yield { value: "two" };
      }
      const all: string[] = [];
      for await (const { value } of client.talk(questions())) {
        all.push(value);
        heard.resolve();
      }
      assert.deepEqual(all, ["one!", "two!"]);
    });

    it("is refused in the middle of a talk with the reason", async () => {
      const error = await failed(texts(client.talk(said("one", "gone", "three"))));
      assert.equal(reasonOf(error), "GONE");
    });
  });
}
