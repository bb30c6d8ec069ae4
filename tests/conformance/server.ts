// The server under test: what the suite's runner starts, once for each protocol and version of HTTP. It serves on Souk's own server factory.

import { create } from "@bufbuild/protobuf";
import { silentLog } from "#runtime/log.ts";
import { MAX_REQUEST_BYTES } from "#runtime/policy.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, temporaryKeys } from "#runtime/tokens.ts";
import { frame, readFrames } from "./frames.ts";
import { ServerCompatRequestSchema, ServerCompatResponseSchema } from "./gen/connectrpc/conformance/v1/server_compat_pb.ts";
import { conformanceRoutes } from "./service.ts";

const { value: asked } = await readFrames(ServerCompatRequestSchema, process.stdin).next();
if (asked === undefined) throw new Error("The runner starts this program and says on its standard input what to serve.");

const server = await startServer({
  modules: [{ name: "conformance", routes: conformanceRoutes }],
  foreign: {
    anyone: true,
    account: false,
    operator: false,
    services: new Set(),
    timeoutMs: undefined,
    maxStreamAgeMs: undefined,
    maxAttempts: 1,
    maxRequestBytes: asked.messageReceiveLimit || MAX_REQUEST_BYTES,
    cacheControl: undefined,
  },
  host: "127.0.0.1",
  port: 0,
  verifiers: embeddedVerifiers(await temporaryKeys()),
  log: silentLog(),
});
process.once("SIGTERM", () => server.stop(0));
process.stdout.write(
  frame(ServerCompatResponseSchema, create(ServerCompatResponseSchema, { host: "127.0.0.1", port: server.port })),
);
