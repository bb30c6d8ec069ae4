import assert from "node:assert/strict";
import { Code, ConnectError } from "@connectrpc/connect";
import { errorToJson } from "@connectrpc/connect/protocol-connect";
import { readError, writeError } from "#runtime/database/replay.ts";
import { failure, metadataOf, openDetails, reason, reasonOf, retryAfterMsOf, violationsOf } from "#runtime/errors.ts";

const FULL = reason("SHELF_FULL", Code.ResourceExhausted, "The shelf is full.");

describe("an error with a reason", () => {
  it("is the same after it was stored: code, reason, metadata, fields, pause", () => {
    const first = failure(FULL, {
      metadata: { shelf: "7" },
      retryAfterMs: 1500,
      violations: [{ field: "books", description: "too many", rule: "max" }],
    });
    const again = readError(writeError(first));
    assert.equal(again.code, Code.ResourceExhausted);
    assert.equal(reasonOf(again), "SHELF_FULL");
    assert.deepEqual({ ...metadataOf(again) }, { shelf: "7" });
    assert.equal(retryAfterMsOf(again), 1500);
    assert.deepEqual(violationsOf(again), violationsOf(first));
  });

  it("shows its reason in plain words in JSON, also when it was stored or came from another service", () => {
    const stored = openDetails(readError(writeError(failure(FULL, { metadata: { shelf: "7" } }))));
    const { details } = errorToJson(stored, undefined) as { details: { debug?: unknown }[] };
    assert.deepEqual(details[0]?.debug, { reason: "SHELF_FULL", domain: "souk", metadata: { shelf: "7" } });
  });

  it("that came from another service is told again with its wait and none of the headers it came with, and stays as it was for others who have it", () => {
    const bytes = readError(writeError(failure(FULL, { retryAfterMs: 1500 }))).details;
    const theirs = new ConnectError("The shelf is full.", Code.ResourceExhausted, { "x-theirs": "1", "grpc-status": "8" });
    theirs.details = bytes;
    const told = openDetails(theirs);
    assert.deepEqual(
      [...told.metadata],
      [
        ["grpc-retry-pushback-ms", "1500"],
        ["retry-after", "2"],
      ],
    );
    assert.equal(theirs.details, bytes);
    assert.equal(openDetails(told), told);
  });

  it("keeps details that cannot be read as they are", () => {
    const error = failure(FULL);
    const broken = { type: "google.rpc.RetryInfo", value: new Uint8Array([0x0a, 0x7f]) };
    error.details.push(broken);
    assert.deepEqual(openDetails(error).details.at(-1), broken);
    assert.equal(reasonOf(error), "SHELF_FULL");
  });

  it("keeps details that it does not know as they are", () => {
    const error = new ConnectError("no", Code.Aborted);
    error.details = [{ type: "other.v1.Detail", value: new Uint8Array([1]) }];
    assert.deepEqual(openDetails(error).details, [{ type: "other.v1.Detail", value: new Uint8Array([1]) }]);
  });
});
