import type { DescMethod } from "@bufbuild/protobuf";
import { createContextValues, createHandlerContext, type HandlerContext } from "@connectrpc/connect";
import { type Caller, callKey } from "#runtime/call.ts";
import { quietLog } from "./database.ts";

/** The context of a call as the interceptors leave it, for tests that call a handler or `database.command` directly. */
export function callContext(
  method: DescMethod,
  options: { caller?: Caller; timeoutMs?: number; signal?: AbortSignal; headers?: Record<string, string> } = {},
): HandlerContext {
  const values = createContextValues();
  values.set(callKey, {
    caller: options.caller ?? { kind: "account", accountId: "0198a0de-0000-7000-8000-000000000001", operator: false },
    deadline: Date.now() + (options.timeoutMs ?? 5_000),
    signal: options.signal ?? new AbortController().signal,
    log: quietLog,
    method,
  });
  return createHandlerContext({
    service: method.parent,
    method,
    protocolName: "connect",
    requestMethod: "POST",
    url: `http://localhost/${method.parent.typeName}/${method.name}`,
    contextValues: values,
    ...(options.headers === undefined ? {} : { requestHeader: options.headers }),
  });
}
