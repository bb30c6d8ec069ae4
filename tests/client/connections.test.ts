import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  constants,
  createServer as createHttp2Server,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { type GrpcClientOptions, openGrpcClient } from "#runtime/client/transport.ts";
import { ROOT } from "../support/process.ts";
import { answer, Echo, framed, rawServer, texts } from "./echo.ts";

const isUnavailable = (error: unknown) => error instanceof ConnectError && error.code === Code.Unavailable;

describe("a client's connections", () => {
  const ends: (() => unknown)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  function clientTo(baseUrl: string | string[], options: Partial<GrpcClientOptions> = {}) {
    const grpc = openGrpcClient({ baseUrl, ...options });
    ends.push(() => grpc.close());
    return { client: createClient(Echo, grpc.transport()), grpc };
  }

  async function serving(set: Parameters<typeof rawServer>[0]) {
    const server = await rawServer(set);
    ends.push(() => server.stop());
    return server;
  }

  /** Sends commands, so many at once, and tells what those say that failed. */
  async function load(command: () => Promise<unknown>, calls: number, concurrency: number): Promise<string[]> {
    const failures: string[] = [];
    let left = calls;
    const worker = async () => {
      while (left-- > 0) await command().catch((error) => failures.push(String(error)));
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
    return failures;
  }

  it("call their place by the name it is served under, where they reach it by another", async () => {
    const asked: unknown[] = [];
    const server = await serving((http2) =>
      http2.on("stream", (stream: ServerHttp2Stream, headers) => {
        asked.push(headers[":authority"]);
        answer(stream);
      }),
    );
    await clientTo(server.url, { authority: "shop.example" }).client.command({ value: "" });
    await clientTo(server.url).client.command({ value: "" });
    assert.deepEqual(asked, ["shop.example", new URL(server.url).host]);
  });

  const STORMS: Readonly<Record<string, (session: ServerHttp2Session) => void>> = {
    "ends every connection again and again (GOAWAY)": (session) => session.close(),
    "warns before it ends every connection (GOAWAY twice)": (session) => {
      session.goaway(constants.NGHTTP2_NO_ERROR, 2 ** 31 - 1);
      setTimeout(() => session.close(), 3);
    },
  };
  for (const [how, end] of Object.entries(STORMS)) {
    it(`fail no call, and make none twice, while the server ${how}`, async () => {
      let goaways = 0;
      let begun = 0;
      const server = await serving((http2) => {
        http2.updateSettings({ maxConcurrentStreams: 40 });
        http2.on("session", (session) => {
          setTimeout(
            () => {
              if (session.destroyed) return;
              goaways++;
              end(session);
            },
            5 + Math.random() * 30,
          );
        });
        http2.on("stream", (stream: ServerHttp2Stream) => {
          begun++;
          stream.resume();
          setTimeout(() => answer(stream), Math.random() * 5);
        });
      });
      const { client, grpc } = clientTo(server.url);
      const failures = await load(() => client.command({ value: "x".repeat(200) }, { timeoutMs: 15_000 }), 3_000, 64);
      assert.equal(failures.length, 0, `${failures.length} failed: ${[...new Set(failures)]}`);
      assert.equal(begun, 3_000, JSON.stringify(grpc.attempts));
      assert.ok(goaways >= 5, `${goaways} GOAWAYs, ${JSON.stringify(grpc.attempts)}`);
    });
  }

  it("take RST_STREAM(NO_ERROR) after an answer as no error, though the request was not over", async () => {
    const server = await serving((http2) =>
      http2.on("stream", (stream: ServerHttp2Stream) => {
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => {
          stream.sendTrailers({ "grpc-status": "0" });
          setTimeout(() => stream.close(constants.NGHTTP2_NO_ERROR), 2);
        });
        stream.end(framed("enough"));
      }),
    );
    const { client } = clientTo(server.url);
    async function* endless() {
      for (;;) {
        yield { value: "more".repeat(5_000) };
        await new Promise(setImmediate);
      }
    }
    for (let round = 0; round < 20; round++) {
      assert.equal((await client.command({ value: "x".repeat(300_000) })).value, "enough");
      assert.equal((await client.collect(endless())).value, "enough");
    }
  });

  it("fail a call whose stream ends without a status", async () => {
    const server = await serving((http2) =>
      http2.on("stream", (stream: ServerHttp2Stream) => stream.close(constants.NGHTTP2_NO_ERROR)),
    );
    const { client } = clientTo(server.url);
    await assert.rejects(client.command({}), ConnectError);
  });

  it("survive a GOAWAY with an error, and go on with the next call", async () => {
    const server = await serving((http2) => http2.on("stream", (stream: ServerHttp2Stream) => answer(stream)));
    const { client } = clientTo(server.url);
    for (const code of [constants.NGHTTP2_ENHANCE_YOUR_CALM, constants.NGHTTP2_INTERNAL_ERROR]) {
      await client.command({});
      const [session] = server.sessions;
      assert.ok(session);
      session.goaway(code);
      setTimeout(() => session.destroy(), 20);
      await once(session, "close");
      assert.equal((await client.command({})).value, "well");
    }
  });

  it("are UNAVAILABLE, long before the deadline, when nothing listens, or when what listens says nothing", async () => {
    const deaf = createServer(() => {}).listen(0, "127.0.0.1");
    await once(deaf, "listening");
    const sockets = new Set<Socket>();
    deaf.on("connection", (socket) => sockets.add(socket.on("error", () => {})));
    const { port } = deaf.address() as AddressInfo;
    const { client } = clientTo(`http://127.0.0.1:${port}`, { connectTimeoutMs: 100 });
    await assert.rejects(client.command({}, { timeoutMs: 15_000 }), isUnavailable);
    for (const socket of sockets) socket.destroy();
    deaf.close();
    await once(deaf, "close");
    await assert.rejects(client.command({}, { timeoutMs: 15_000 }), isUnavailable);
    await assert.rejects(clientTo("http://nowhere.invalid:80").client.command({}, { timeoutMs: 15_000 }), isUnavailable);
  });

  it("are found again at once when the server is back", async () => {
    const well = (http2: Http2Server) => http2.on("stream", (stream: ServerHttp2Stream) => answer(stream));
    const first = await rawServer(well);
    const { client } = clientTo(first.url);
    await client.command({});
    await first.stop();
    for (let round = 0; round < 3; round++) await assert.rejects(client.command({}), isUnavailable);
    const second = await rawServer(well, first.port);
    ends.push(() => second.stop());
    assert.equal((await client.command({})).value, "well");
  });

  it("are made anew by the next call when one could not be made in time", async () => {
    const silent: Socket[] = [];
    const http2 = createHttp2Server().on("stream", (stream: ServerHttp2Stream) => answer(stream));
    let connections = 0;
    const server = createServer((socket) => {
      if (connections++ < 3) silent.push(socket.on("error", () => {}));
      else http2.emit("connection", socket);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    ends.push(() => {
      for (const socket of silent) socket.destroy();
      server.close();
    });
    const { client } = clientTo(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, { connectTimeoutMs: 500 });
    await assert.rejects(client.command({}), isUnavailable);
    assert.equal((await client.command({})).value, "well");
  });

  it("are made again when they break before they stand, for commands and streams alike", async () => {
    const http2 = createHttp2Server().on("stream", (stream: ServerHttp2Stream) => answer(stream));
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      if (sockets.push(socket) % 2 === 1) socket.destroy();
      else http2.emit("connection", socket);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    ends.push(() => {
      // A session that was handed its socket does not always hear that the client closed it, and would keep this process alive.
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    assert.equal((await clientTo(url).client.command({})).value, "well");
    assert.deepEqual(await texts(clientTo(url).client.list({})), ["well"]);
  });

  it("share calls among all addresses, and leave the one that is gone", async () => {
    const counts = [0, 0];
    const servers = await Promise.all(
      counts.map((_, index) =>
        serving((http2) =>
          http2.on("stream", (stream: ServerHttp2Stream) => {
            counts[index] = (counts[index] ?? 0) + 1;
            answer(stream);
          }),
        ),
      ),
    );
    const { client } = clientTo(servers.map(({ url }) => url));
    while (counts.some((count) => count < 20)) await client.command({});
    await servers[0]?.stop();
    const before = [...counts];
    const { length } = await load(() => client.command({}), 50, 1);
    assert.ok(length <= 1, `${length} failed`);
    assert.ok((counts[1] ?? 0) >= (before[1] ?? 0) + 49);
  });

  it("refuse places that they cannot share calls among", () => {
    for (const baseUrl of [["http://a:1", "http://b:1"], ["http://1.1.1.1", "https://1.1.1.2"], [], "ftp://a", "http://a/path"]) {
      assert.throws(() => openGrpcClient({ baseUrl }), /place/);
    }
  });

  it("end with the client, and the calls on them", async () => {
    const server = await serving((http2) => http2.on("stream", () => {}));
    const { client, grpc } = clientTo(server.url, { pingIntervalMs: 1_000_000 });
    const call = assert.rejects(client.command({}), isUnavailable);
    while (server.sessions.size === 0) await new Promise(setImmediate);
    await new Promise((resolve) => setTimeout(resolve, 50));
    grpc.close();
    await call;
    await assert.rejects(client.command({}), isUnavailable);
    while (server.sessions.size > 0) await new Promise(setImmediate);
  });

  it("keep no process alive that has nothing else to do", async () => {
    const server = await serving((http2) => http2.on("stream", (stream: ServerHttp2Stream) => answer(stream)));
    const program = `
      import { createClient } from "@connectrpc/connect";
      import { openGrpcClient } from "#runtime/client/transport.ts";
      import { Echo } from "./tests/client/echo.ts";
      const client = createClient(Echo, openGrpcClient({ baseUrl: "${server.url}" }).transport());
      console.log((await client.command({})).value);
    `;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "inherit"],
    });
    ends.push(() => child.kill("SIGKILL"));
    const said = once(child.stdout, "data");
    const [code] = await once(child, "exit");
    assert.equal(code, 0);
    assert.equal(String((await said)[0]).trim(), "well");
  });

  describe("to a process that is gone", () => {
    const PROGRAM = `
      const server = require("node:http2").createServer();
      server.on("stream", (stream, headers) => {
        if (headers["x-wait"]) return;
        stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
        stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
        stream.end(Buffer.alloc(5));
      });
      server.listen(Number(process.argv[1]), "127.0.0.1", () => console.log(server.address().port));
    `;

    async function start(port = 0): Promise<{ child: ChildProcess; port: number }> {
      const child = spawn(process.execPath, ["-e", PROGRAM, String(port)], { stdio: ["ignore", "pipe", "inherit"] });
      ends.push(() => child.kill("SIGKILL"));
      const [line] = await once(child.stdout as NonNullable<typeof child.stdout>, "data");
      return { child, port: Number(String(line)) };
    }

    it("fail their calls at once when it is killed, and find its successor", async () => {
      const { child, port } = await start();
      const { client } = clientTo(`http://127.0.0.1:${port}`);
      await client.command({});
      const waiting = assert.rejects(client.command({}, { headers: { "x-wait": "1" } }), isUnavailable);
      await client.command({});
      child.kill("SIGKILL");
      await waiting;
      await once(child, "exit");
      await start(port);
      await client.command({});
    });

    it("notice that it hangs, though its connections stand, and go on when it does", async () => {
      const { child, port } = await start();
      const options = { pingIntervalMs: 500, pingTimeoutMs: 500, connectTimeoutMs: 1_000 };
      const { client } = clientTo(`http://127.0.0.1:${port}`, options);
      await client.command({});
      child.kill("SIGSTOP");
      await assert.rejects(client.command({}), isUnavailable);
      await assert.rejects(client.command({}), isUnavailable);
      child.kill("SIGCONT");
      await client.command({});
    });
  });
});
