import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { createDirectory } from "#runtime/clients.ts";
import { type Log, silentLog } from "#runtime/log.ts";
import { type Server, type ServerOptions, startServer } from "#runtime/server.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { embeddedVerifiers, type Keys, serviceTokens, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";

/** Who a test calls as. */
export type Identity =
  | { readonly account: string; readonly operator?: boolean }
  | { readonly service: string }
  | { readonly token: string }
  | undefined;

/** Services under test, reached in memory or through a server on a free port. */
export interface Subject {
  readonly keys: Keys;
  /** Where the server listens; throws in memory. */
  readonly url: string;
  client<S extends DescService>(service: S, identity?: Identity, module?: string): Client<S>;
  /** Starts anew by hand, for tests beside `overBothTransports`. */
  stop(): Promise<void>;
}

/** A module that has RPCs only. */
export function rpcModule(name: string, routes: ServiceModule["routes"]): ServiceModule {
  return { name, routes, consumers: [], jobs: [], recurring: [] };
}

/** Signs in: puts the identity's token on each call. */
export function signedIn(keys: Keys, identity: Identity): Interceptor {
  const source = identity !== undefined && "service" in identity ? serviceTokens(keys, identity.service) : undefined;
  return (next) => async (request) => {
    if (source !== undefined) {
      request.header.set(SERVICE_TOKEN_HEADER, await source());
    } else if (identity !== undefined && "account" in identity) {
      const token = await signAccountToken(keys, { accountId: identity.account, operator: identity.operator ?? false });
      request.header.set("authorization", `Bearer ${token}`);
    } else if (identity !== undefined && "token" in identity) {
      request.header.set("authorization", `Bearer ${identity.token}`);
    }
    return next(request);
  };
}

/** Modules behind the in-memory transport. */
export async function inMemory(modules: readonly ServiceModule[], log: Log = silentLog()): Promise<Subject> {
  const keys = await temporaryKeys();
  const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log });
  directory.host(modules);
  return {
    keys,
    get url(): string {
      throw new Error("In memory there is no url.");
    },
    client: (service, identity, module) => createClient(service, directory.transport(service, module, [signedIn(keys, identity)])),
    stop: async () => {},
  };
}

/** What carries a test's calls: the in-memory transport, or a real server on a free port spoken to in JSON. */
export type Carrier = "memory" | "server";
/** Both. */
export const carriers: readonly Carrier[] = ["memory", "server"];

/** Modules behind a carrier, for tests that need new ones each time. Others say `overBothTransports`. */
export function behind(carrier: Carrier, modules: readonly ServiceModule[]): Promise<Subject> {
  return carrier === "memory" ? inMemory(modules) : onServer(modules);
}

/** The ways to call a server. */
export type Protocol = "Connect JSON" | "Connect protobuf" | "gRPC" | "gRPC-Web";

/** A transport of one protocol to a server. */
export function transportOf(
  protocol: Protocol,
  baseUrl: string,
  interceptors: Interceptor[],
  httpVersion: "1.1" | "2" = "2",
): Transport {
  switch (protocol) {
    case "Connect JSON":
      return createConnectTransport({ baseUrl, httpVersion, interceptors, useBinaryFormat: false });
    case "Connect protobuf":
      return createConnectTransport({ baseUrl, httpVersion, interceptors, useBinaryFormat: true });
    case "gRPC":
      return createGrpcTransport({ baseUrl, interceptors });
    case "gRPC-Web":
      return createGrpcWebTransport({ baseUrl, httpVersion, interceptors });
  }
}

/** Modules behind a real server on a free port, called with one protocol. */
export async function onServer(
  modules: readonly ServiceModule[],
  protocol: Protocol = "Connect JSON",
  options: Partial<ServerOptions> = {},
): Promise<Subject & { readonly server: Server }> {
  const keys = await temporaryKeys();
  const verifiers = embeddedVerifiers(keys);
  const server = await startServer({
    modules,
    port: 0,
    host: "127.0.0.1",
    verifiers,
    log: silentLog(),
    reflection: true,
    ...options,
  });
  return {
    keys,
    url: server.url,
    server,
    client: (service, identity) =>
      createClient(service, transportOf(protocol, server.url, [signedIn(keys, identity)], httpVersionOf(protocol))),
    stop: () => server.stop(2000),
  };
}

/** One protocol goes over HTTP/1.1, so that both versions are always met. */
function httpVersionOf(protocol: Protocol): "1.1" | "2" {
  return protocol === "gRPC-Web" ? "1.1" : "2";
}

/** Runs the same tests over the in-memory transport and over a server with each protocol. `body` declares tests; `subject()` is for within them. */
export function overBothTransports(
  name: string,
  modules: () => readonly ServiceModule[] | Promise<readonly ServiceModule[]>,
  body: (subject: () => Subject) => void,
  protocols: readonly Protocol[] = ["Connect JSON", "gRPC"],
): void {
  const ways: [string, () => Promise<Subject>][] = [
    ["in memory", async () => inMemory(await modules())],
    ...protocols.map((protocol): [string, () => Promise<Subject>] => [
      `over ${protocol}`,
      async () => onServer(await modules(), protocol),
    ]),
  ];
  for (const [way, start] of ways) {
    describe(`${name}, ${way}`, () => {
      let subject: Subject | undefined;
      before(async () => {
        subject = await start();
      });
      after(() => subject?.stop());
      body(() => subject as Subject);
    });
  }
}
