import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createHttp2Server, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { MaintenanceService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { type Call, callOf } from "#runtime/call.ts";
import { type Clients, createDirectory, forAccount, forCall } from "#runtime/clients.ts";
import { fail, metadataOf, reason, retryAfterMsOf, UNAVAILABLE } from "#runtime/errors.ts";
import { silentLog } from "#runtime/log.ts";
import { openPeers, type Peers } from "#runtime/peers.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, type Keys, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import { refused } from "../support/refused.ts";
import { onServer, rpcModule } from "../support/server.ts";

const ALICE = "0198a0de-0000-7000-8000-00000000a11c";
const LISTING = "0198a0de-0000-7000-8000-000000000001";
const GONE = reason("GONE", Code.FailedPrecondition, "It is gone.");

describe("a service in another process", () => {
  const ends: (() => unknown)[] = [];
  let keys: Keys;
  before(async () => {
    keys = await temporaryKeys();
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  function peersAt(urlOf: (service: string) => string): Peers {
    const peers = openPeers({ urlOf });
    ends.push(() => peers.close());
    return peers;
  }

  /** The clients of `order`, which finds the catalog and others behind these addresses. */
  function clientsTo(urlOf: (service: string) => string, knownKeys = keys): Clients {
    const peers = peersAt(urlOf);
    const directory = createDirectory({ verifiers: embeddedVerifiers(knownKeys), log: silentLog() });
    for (const name of ["catalog", "account"]) {
      const services = name === "catalog" ? [CatalogService, MaintenanceService] : [MaintenanceService];
      directory.reach(name, { services, open: (interceptors) => peers.open(name, interceptors) });
    }
    return directory.clientsFor(serviceTokens(knownKeys, "order"));
  }

  type GetListing = (call: Call) => void | Promise<void>;
  const catalogModule = (getListing: GetListing) =>
    rpcModule("catalog", (router) =>
      router.service(CatalogService, {
        async getListing(_request, context) {
          await getListing(callOf(context));
          return {};
        },
      }),
    );

  async function catalogAt(getListing: GetListing, port = 0) {
    const log = silentLog();
    const server = await startServer({
      modules: [catalogModule(getListing)],
      port,
      host: "127.0.0.1",
      verifiers: embeddedVerifiers(keys),
      log,
    });
    ends.push(() => server.stop(0));
    return server;
  }

  /** A port that is no catalog. */
  async function listening(server: Http2Server): Promise<string> {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  it("gets the caller's identity, the account it acts for, and the time that is left", async () => {
    let seen: Call | undefined;
    const { url } = await catalogAt((call) => {
      seen = call;
    });
    await clientsTo(() => url)
      .of(CatalogService)
      .getListing({ listingId: LISTING }, forAccount(ALICE, { timeoutMs: 700 }));
    assert.deepEqual(seen?.caller, { kind: "service", service: "order", accountId: ALICE });
    assert.ok((seen?.deadline ?? Infinity) <= Date.now() + 700);
  });

  it("gives those it calls in turn no more time than it has itself", async () => {
    const left: number[] = [];
    const note = (call: Call) => void left.push(call.deadline - Date.now());
    const inner = await catalogAt(note);
    let onward: Clients | undefined;
    const outer = await catalogAt(async (call) => {
      note(call);
      await sleep(30);
      await onward?.of(CatalogService).getListing({ listingId: LISTING }, forCall(call));
    });
    onward = clientsTo(() => inner.url);
    const clients = clientsTo(() => outer.url);
    await clients.of(CatalogService).getListing({ listingId: LISTING }, { timeoutMs: 900 });
    const [first = 0, second = 0] = left;
    assert.ok(first <= 900 && second <= first - 28, String(left));
  });

  it("is tried again as its policy allows where no other layer does that", async () => {
    for (const [retries, tries] of [
      [undefined, 3],
      [false, 1],
    ] as const) {
      let tried = 0;
      const { url } = await catalogAt(() => {
        tried++;
        fail(UNAVAILABLE);
      });
      const peers = openPeers({ urlOf: () => url, retries });
      ends.push(() => peers.close());
      const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: silentLog() });
      directory.reach("catalog", { services: [CatalogService], open: (interceptors) => peers.open("catalog", interceptors) });
      const clients = directory.clientsFor(serviceTokens(keys, "order"));
      await refused(clients.of(CatalogService).getListing({ listingId: LISTING }), "UNAVAILABLE");
      assert.equal(tried, tries);
      assert.equal(peers.attempts().sent, tries);
    }
  });

  it("answers a refusal with its reason and what belongs to it", async () => {
    const { url } = await catalogAt(() => fail(GONE, { metadata: { since: "1999" } }));
    const call = clientsTo(() => url)
      .of(CatalogService)
      .getListing({ listingId: LISTING });
    const error = await refused(call, "GONE", Code.FailedPrecondition);
    assert.deepEqual(metadataOf(error), { since: "1999" });
  });

  it("says nothing to its callers' callers but its reason and how long to wait: the headers of its answer are none of theirs", async () => {
    const inner = await catalogAt(() => fail(GONE, { retryAfterMs: 60_000 }));
    const needed = clientsTo(() => inner.url).of(CatalogService);
    const { url } = await catalogAt(async (call) => {
      await needed.getListing({ listingId: LISTING }, forCall(call));
    });
    const token = await serviceTokens(keys, "order")();
    const { status, headers } = await fetch(`${url}/marketplace.catalog.v1.CatalogService/GetListing`, {
      method: "POST",
      headers: { "content-type": "application/json", [SERVICE_TOKEN_HEADER]: token },
      body: JSON.stringify({ listingId: LISTING }),
    });
    assert.equal(status, 400);
    const names = [...headers.keys()].filter((name) => !["connection", "date", "keep-alive"].includes(name));
    assert.deepEqual(names, ["content-length", "content-type", "grpc-retry-pushback-ms", "retry-after"]);
    assert.equal(headers.get("retry-after"), "60");
  });

  it("refuses a caller whose keys are others", async () => {
    const { url } = await catalogAt(() => {});
    const strangers = clientsTo(() => url, await temporaryKeys());
    await refused(strangers.of(CatalogService).getListing({ listingId: LISTING }), "TOKEN_INVALID");
  });

  it("hears that its caller has given up", async () => {
    const ended = Promise.withResolvers<void>();
    const giveUp = new AbortController();
    const { url } = await catalogAt(async (call) => {
      call.signal.addEventListener("abort", () => ended.resolve());
      giveUp.abort();
      await ended.promise;
    });
    const call = clientsTo(() => url)
      .of(CatalogService)
      .getListing({ listingId: LISTING }, { signal: giveUp.signal });
    await refused(call, "CANCELLED");
    await ended.promise;
  });

  it("is told apart from others on its port that implement the same contract", async () => {
    const own = (name: string) => ({
      name,
      routes: rpcModule(name, (router) => router.service(MaintenanceService, { listOwnJobs: () => ({ nextPageToken: name }) }))
        .routes,
    });
    const subject = await onServer([catalogModule(() => {})], "gRPC", { inner: [own("catalog"), own("account")] });
    ends.push(() => subject.stop());
    const directory = createDirectory({ verifiers: embeddedVerifiers(subject.keys), log: silentLog() });
    const peers = peersAt(() => subject.url);
    for (const name of ["catalog", "account"]) {
      directory.reach(name, { services: [MaintenanceService], open: (interceptors) => peers.open(name, interceptors) });
    }
    const ops = directory.clientsFor(serviceTokens(subject.keys, "ops"));
    for (const name of ["catalog", "account"]) {
      assert.equal((await ops.at(name, MaintenanceService).listOwnJobs({})).nextPageToken, name);
    }
    const order = directory.clientsFor(serviceTokens(subject.keys, "order"));
    await refused(order.at("catalog", MaintenanceService).listOwnJobs({}), "PERMISSION_DENIED");
    await refused(subject.client(MaintenanceService, { service: "ops" }).listOwnJobs({}), "UNIMPLEMENTED");
  });

  it("is found again after it went away and came back", async () => {
    const first = await catalogAt(() => {});
    const catalog = clientsTo(() => first.url).of(CatalogService);
    await catalog.getListing({ listingId: LISTING });
    await first.stop(0);
    await refused(catalog.getListing({ listingId: LISTING }), "UNAVAILABLE");
    await catalogAt(() => {}, first.port);
    await catalog.getListing({ listingId: LISTING });
  });

  it("finishes the calls it has begun when it is ended, and refuses none that another one takes", async () => {
    const begun = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    let calls = 0;
    const first = await catalogAt(async () => {
      // It may be that it is asked once more before its caller has heard that it goes.
      if (calls++ > 0) return;
      begun.resolve();
      await goOn.promise;
    });
    const catalog = clientsTo(() => first.url).of(CatalogService);
    const slow = catalog.getListing({ listingId: LISTING });
    await begun.promise;
    const stopped = first.stop(5_000);
    await catalogAt(() => {}, first.port);
    await Promise.all(Array.from({ length: 20 }, () => catalog.getListing({ listingId: LISTING })));
    goOn.resolve();
    await slow;
    await stopped;
  });

  it("fails whoever needs it with a code that nobody retries: one call is not asked for again at every service on its way", async () => {
    const gone = await catalogAt(() => {});
    await gone.stop(0);
    const needed = clientsTo(() => gone.url).of(CatalogService);
    const { url } = await catalogAt(async (call) => {
      await needed.getListing({ listingId: LISTING }, forCall(call));
    });
    const call = clientsTo(() => url)
      .of(CatalogService)
      .getListing({ listingId: LISTING });
    const error = await refused(call, "DEPENDENCY_UNAVAILABLE", Code.Internal);
    assert.deepEqual(metadataOf(error), { cause: "UNAVAILABLE" });
    assert.equal(retryAfterMsOf(error), 1000);
  });

  it("is UNAVAILABLE, not cancelled, when the connection breaks in the middle of a call", async () => {
    for (const how of ["destroy", "resetAndDestroy"] as const) {
      const server = createHttp2Server();
      server.on("session", (session) => session.on("error", () => {}));
      server.on("stream", (stream) => {
        stream.on("error", () => {});
        stream.session?.socket[how]();
      });
      const url = await listening(server);
      ends.push(() => server.close());
      const call = clientsTo(() => url)
        .of(CatalogService)
        .getListing({ listingId: LISTING });
      await refused(call, "UNAVAILABLE", Code.Unavailable);
    }
  });

  it("does not end its callers' process by a GOAWAY while nothing is under way, whatever becomes of the connection", async () => {
    const sessions: ServerHttp2Session[] = [];
    const server = createHttp2Server((request, response) => {
      request.resume();
      response.writeHead(200, { "content-type": "application/grpc" });
      response.addTrailers({ "grpc-status": "0" });
      response.end(Buffer.alloc(5));
    });
    server.on("session", (session) => sessions.push(session.on("error", () => {})));
    const url = await listening(server);
    ends.push(() => server.close());
    const catalog = clientsTo(() => url).of(CatalogService);
    // A call may be on its way while the other side breaks off: that one is unknown, the next one answered.
    const ask = () => catalog.getListing({ listingId: LISTING });
    const answered = () => ask().catch((error) => refused(Promise.reject(error), "UNAVAILABLE").then(ask));
    for (const code of [0, 2, 11]) {
      await answered();
      const session = sessions.at(-1) as ServerHttp2Session;
      const closed = once(session, "close");
      session.goaway(code);
      setImmediate(() => session.socket.resetAndDestroy());
      await closed;
    }
    await answered();
    for (const session of sessions) session.destroy();
  });

  it("that does not answer costs its caller no more than the method's time", async () => {
    const deaf = createHttp2Server();
    const sessions: ServerHttp2Session[] = [];
    deaf.on("session", (session) => sessions.push(session.on("error", () => {})));
    const url = await listening(deaf);
    ends.push(() => {
      for (const session of sessions) session.destroy();
      deaf.close();
    });
    const catalog = clientsTo(() => url).of(CatalogService);
    await refused(catalog.getListing({ listingId: LISTING }, { timeoutMs: 50 }), "DEADLINE_EXCEEDED");
    // Without a deadline of the caller's.
    await refused(catalog.getListing({ listingId: LISTING }), "DEADLINE_EXCEEDED");
  });
});
