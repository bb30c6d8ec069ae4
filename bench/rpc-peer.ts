// connect-node with the same duties: how unary calls were served before they had a way of their own.

import { createRegistry, type DescMessage, type DescMethod } from "@bufbuild/protobuf";
import { ConnectError, createConnectRouter, type Interceptor, type UnaryRequest, type UnaryResponse } from "@connectrpc/connect";
import { compressionGzip } from "@connectrpc/connect-node";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { Verifiers } from "#runtime/access.ts";
import { callerName, callKey } from "#runtime/call.ts";
import { type Duties, IDENTITY_HEADERS, logCall, presentable } from "#runtime/duties.ts";
import { CANCELLED, DEADLINE_EXCEEDED, failure } from "#runtime/errors.ts";
import { type Arrival, arrivalKey, createGate } from "#runtime/interceptors.ts";
import { listen } from "#runtime/listener.ts";
import type { Log } from "#runtime/log.ts";
import { MAX_REQUEST_BYTES, methodName, readPolicies } from "#runtime/policy.ts";
import { byCode } from "#runtime/refusals.ts";
import { serveStream } from "#runtime/streams.ts";
import { createValidation } from "#runtime/validation.ts";
import { catalogModule } from "./rpc-subject.ts";

const BODY_TIMEOUT_MS = 10_000;

/** Serves the catalog through connect-node's handlers, behind the runtime's duties. */
export async function servePeer(options: { verifiers: Verifiers; log: Log }): Promise<number> {
  const methods: readonly DescMethod[] = CatalogService.methods;
  const duties: Duties = {
    policies: readPolicies([CatalogService]),
    verifiers: options.verifiers,
    validation: createValidation(new Set<DescMessage>(methods.map((method) => method.input))),
    log: options.log,
    reasons: true,
    types: createRegistry(),
    shutdown: new AbortController().signal,
    observer: undefined,
  };
  const router = createConnectRouter({
    requestGate: createGate(duties),
    interceptors: [unaryInterceptor(duties)],
    acceptCompression: [compressionGzip],
    readMaxBytes: MAX_REQUEST_BYTES,
    jsonOptions: { ignoreUnknownFields: false },
  });
  catalogModule.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  const { port } = await listen({
    port: 0,
    host: "127.0.0.1",
    log: options.log,
    handler(request, response) {
      const handler = handlers.get(request.url ?? "");
      if (handler === undefined) throw new Error(`There is nothing at ${request.url}.`);
      serveStream(handler, request, response, { bodyTimeoutMs: BODY_TIMEOUT_MS, bare: false }).catch(() => response.destroy());
    },
  });
  return port;
}

/** What ran around every unary handler: the deadline, validation, errors with reasons, the log. */
function unaryInterceptor(duties: Duties): Interceptor {
  return (next) => async (request) => {
    const arrival = request.contextValues.get(arrivalKey);
    if (arrival === undefined || request.stream) throw new Error("The gate did not run.");
    arrival.began = true;
    const bound = bind(arrival, request.signal);
    try {
      if (bound.signal.aborted) throw bound.signal.reason;
      duties.validation.check(arrival.method.input, request.message);
      takeCall(duties, arrival, request, bound.signal);
      const response = (await Promise.race([next({ ...request, signal: bound.signal }), bound.over])) as UnaryResponse;
      logCall(duties.log, arrival);
      return response;
    } catch (error) {
      const answer = presentable(bound.signal.aborted ? bound.signal.reason : error, duties, arrival.method);
      logCall(duties.log, arrival, answer);
      throw answer;
    } finally {
      bound.end();
    }
  };
}

function bind(arrival: Arrival, caller: AbortSignal): { signal: AbortSignal; over: Promise<never>; end(): void } {
  const controller = new AbortController();
  const { promise: over, reject } = Promise.withResolvers<never>();
  over.catch(() => {});
  const abort = (reason: unknown) => {
    if (controller.signal.aborted) return;
    controller.abort(reason);
    reject(reason);
  };
  const onCaller = () => {
    const { reason } = caller;
    abort((reason instanceof ConnectError ? byCode(reason) : undefined) ?? failure(CANCELLED, { cause: reason }));
  };
  const timer = setTimeout(() => abort(failure(DEADLINE_EXCEEDED)), Math.max(0, arrival.deadline - Date.now()));
  if (caller.aborted) onCaller();
  else caller.addEventListener("abort", onCaller);
  return {
    signal: controller.signal,
    over,
    end() {
      clearTimeout(timer);
      caller.removeEventListener("abort", onCaller);
    },
  };
}

function takeCall(duties: Duties, { method, caller, deadline }: Arrival, request: UnaryRequest, signal: AbortSignal): void {
  let log: Log | undefined;
  request.contextValues.set(callKey, {
    caller,
    deadline,
    signal,
    method,
    get log() {
      log ??= duties.log.child({ method: methodName(method), caller: callerName(caller) });
      return log;
    },
  });
  for (const name of IDENTITY_HEADERS) request.header.delete(name);
}
