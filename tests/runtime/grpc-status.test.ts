import assert from "node:assert/strict";
import { Code, ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { grpcStatus } from "#runtime/rpc/grpc-status.ts";

const messageOf = (text: string) => grpcStatus(new ConnectError(text, Code.InvalidArgument)).get("grpc-message") ?? "";

describe("the message of a gRPC status", () => {
  it("stands as it is where a header can hold it", () => {
    assert.equal(messageOf("lines[0].units: must be 1, 2 or 3? (#7)"), "lines[0].units: must be 1, 2 or 3? (#7)");
    assert.equal(messageOf("100 % für ¥5\n"), "100 %25 f%C3%BCr %C2%A55%0A");
  });

  it("is printable, and comes back whole, whatever its text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
        const message = messageOf(text.toWellFormed());
        assert.match(message, /^[ -~]*$/);
        assert.equal(message.trim(), message);
        assert.equal(decodeURIComponent(message), text.toWellFormed());
      }),
    );
  });
});
