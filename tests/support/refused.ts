import assert from "node:assert/strict";
import { type Code, ConnectError } from "@connectrpc/connect";
import { reasonOf } from "#runtime/errors.ts";

/** Expects a call to fail with a reason, and a code where one is given; gives the error. */
export async function refused(call: Promise<unknown>, reason: string, code?: Code): Promise<ConnectError> {
  const error = await call.then(
    () => assert.fail(`expected ${reason}, and the call succeeded`),
    (thrown: unknown) => thrown,
  );
  assert.equal(reasonOf(error), reason, String(error));
  assert.ok(error instanceof ConnectError);
  if (code !== undefined) {
    assert.equal(error.code, code);
  }
  return error;
}
