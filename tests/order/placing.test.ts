import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { PlaceOrderRequestSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import type { Call } from "#runtime/call.ts";
import type { Clients } from "#runtime/clients.ts";
import { DEADLINE_EXCEEDED, fail } from "#runtime/errors.ts";
import { placements } from "../../services/order/placing.ts";
import { refused } from "../support/refused.ts";

describe("What a buyer and a seller agree on", () => {
  it("is asked for by no call that fails unheard when time runs out just then", async () => {
    const unheard: unknown[] = [];
    const hear = (reason: unknown) => unheard.push(reason);
    process.prependListener("unhandledRejection", hear);
    const late = async () => fail(DEADLINE_EXCEEDED);
    const clients = { of: () => ({ batchGetListings: late, getAddress: late }) } as unknown as Clients;
    let looks = 0;
    // There is time at the first look, and none at the second.
    const call = {
      caller: { kind: "account", accountId: "ben" },
      signal: new AbortController().signal,
      get deadline() {
        return Date.now() + (looks++ === 0 ? 1_000 : -1);
      },
    } as unknown as Call;
    await refused(placements(clients).agree(create(PlaceOrderRequestSchema), call), "DEADLINE_EXCEEDED");
    await new Promise((resolve) => setTimeout(resolve, 10));
    process.removeListener("unhandledRejection", hear);
    assert.deepEqual(unheard, []);
  });
});
