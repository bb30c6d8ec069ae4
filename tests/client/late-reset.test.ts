import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { Metadata, status } from "@grpc/grpc-js";
import { toError } from "#runtime/client/status.ts";

describe("a stream that its server resets", () => {
  const reset = () => ({ code: status.CANCELLED, details: "Call cancelled", metadata: new Metadata() });

  it("has run out of time when the call's time is over, and is broken before", () => {
    assert.equal(toError(reset(), undefined, Date.now() - 1).code, Code.DeadlineExceeded);
    assert.equal(toError(reset(), undefined, Number.POSITIVE_INFINITY).code, Code.Unavailable);
  });
});
