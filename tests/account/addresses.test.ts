import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { metadataOf, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { refused } from "../support/refused.ts";
import { overBothTransports } from "../support/server.ts";
import { type Office, openOffice } from "./office.ts";

let office: Office;
const street = { recipient: "Ada", lines: ["Club Road 7", "Flat 3"], city: "Reading", postalCode: "RG1", countryCode: "GB" };

overBothTransports(
  "addresses and payout destinations",
  async () => {
    office = await openOffice();
    return [office.module];
  },
  (subject) => {
    after(() => office.close());
    const as = (accountId: string) => subject().client(AccountService, { account: accountId });
    const add = async (accountId: string, city = "Reading") => {
      const { address } = await as(accountId).createAddress({ requestId: newId(), ...street, city });
      return address?.addressId as string;
    };

    it("are added, read, listed and deleted by their owner", async () => {
      const owner = newId();
      const { address } = await as(owner).createAddress({ requestId: newId(), ...street });
      const addressId = address?.addressId as string;
      assert.deepEqual(address?.lines, street.lines);
      assert.deepEqual((await as(owner).getAddress({ addressId })).address, address);
      assert.deepEqual((await as(owner).listAddresses({})).addresses, [address]);
      await as(owner).deleteAddress({ requestId: newId(), addressId });
      await refused(as(owner).getAddress({ addressId }), "ADDRESS_NOT_FOUND", Code.NotFound);
      await refused(as(owner).deleteAddress({ requestId: newId(), addressId }), "ADDRESS_NOT_FOUND");
    });

    it("of others do not exist", async () => {
      const [owner, stranger] = [newId(), newId()];
      const addressId = await add(owner);
      await refused(as(stranger).getAddress({ addressId }), "ADDRESS_NOT_FOUND");
      await refused(as(stranger).deleteAddress({ requestId: newId(), addressId }), "ADDRESS_NOT_FOUND");
      assert.deepEqual((await as(stranger).listAddresses({})).addresses, []);
      const operator = subject().client(AccountService, { account: stranger, operator: true });
      await refused(operator.getAddress({ addressId }), "ADDRESS_NOT_FOUND");
      assert.equal((await as(owner).getAddress({ addressId })).address?.addressId, addressId);
    });

    it("are read by the order service for the account it acts for only", async () => {
      const owner = newId();
      const addressId = await add(owner);
      const order = subject().client(AccountService, { service: "order" });
      const acting = (accountId: string) => ({ headers: { "x-souk-account": accountId } });
      assert.equal((await order.getAddress({ addressId }, acting(owner))).address?.city, "Reading");
      await refused(order.getAddress({ addressId }, acting(newId())), "ADDRESS_NOT_FOUND");
      await refused(order.getAddress({ addressId }), "PERMISSION_DENIED", Code.PermissionDenied);
      await refused(order.listAddresses({}, acting(owner)), "PERMISSION_DENIED");
    });

    it("are listed oldest first, in pages that nobody can forge", async () => {
      const owner = newId();
      for (const city of ["A", "B", "C"]) {
        await add(owner, city);
        office.clock.advance(1);
      }
      const first = await as(owner).listAddresses({ pageSize: 2 });
      const second = await as(owner).listAddresses({ pageSize: 2, pageToken: first.nextPageToken });
      const cities = [...first.addresses, ...second.addresses].map((address) => address.city);
      assert.deepEqual([cities, second.nextPageToken], [["A", "B", "C"], ""]);
      await refused(as(owner).listAddresses({ pageToken: "bm90IGEgdG9rZW4" }), "PAGE_TOKEN_INVALID", Code.InvalidArgument);
    });

    it("are at most 20, however many are added at once", async () => {
      const owner = newId();
      const outcomes = await Promise.allSettled(Array.from({ length: 25 }, () => add(owner)));
      const lost = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reasonOf(reason));
      assert.deepEqual(lost, Array(5).fill("TOO_MANY_ADDRESSES"));
      const error = await refused(add(owner), "TOO_MANY_ADDRESSES", Code.FailedPrecondition);
      assert.equal(metadataOf(error).max_addresses, "20");
      const { addresses } = await as(owner).listAddresses({});
      await as(owner).deleteAddress({ requestId: newId(), addressId: addresses[7]?.addressId as string });
      await add(owner);
      const slot = { address_id: newId(), account_id: owner, slot: 20, recipient: "", lines: "[]", city: "", region: "" };
      const row = { ...slot, postal_code: "", country_code: "GB", create_time: 0 };
      await assert.rejects(office.database.sql.insertInto("address").values(row).execute(), /constraint/i);
    });

    it("get the first answer again under the same request_id, and none for another request", async () => {
      const owner = newId();
      const request = { requestId: newId(), ...street };
      const [first, ...repeats] = await Promise.all(Array.from({ length: 10 }, () => as(owner).createAddress(request)));
      for (const repeat of repeats) assert.deepEqual(repeat, first);
      assert.equal((await as(owner).listAddresses({})).addresses.length, 1);
      await refused(as(owner).createAddress({ ...request, city: "Bath" }), "REQUEST_ID_REUSED", Code.AlreadyExists);
    });

    it("say for each currency where payouts go", async () => {
      const owner = newId();
      const missing = await refused(as(owner).getPayoutDestination({ currencyCode: "USD" }), "PAYOUT_DESTINATION_MISSING");
      assert.equal(missing.code, Code.FailedPrecondition);
      assert.equal(metadataOf(missing).currency_code, "USD");
      const set = (destinationToken: string, currencyCode: string) =>
        as(owner).setPayoutDestination({ requestId: newId(), destinationToken, currencyCode });
      await set("bank_demo_old", "USD");
      await set("bank_demo_yen", "JPY");
      const { payoutDestination } = await set("bank_demo_ada", "USD");
      assert.equal(payoutDestination?.hint, "_ada");
      const payment = subject().client(AccountService, { service: "payment" });
      const acting = { headers: { "x-souk-account": owner } };
      assert.deepEqual((await payment.getPayoutDestination({ currencyCode: "USD" }, acting)).payoutDestination, payoutDestination);
      const yen = await as(owner).getPayoutDestination({ currencyCode: "JPY" });
      assert.equal(yen.payoutDestination?.destinationToken, "bank_demo_yen");
      await refused(as(newId()).getPayoutDestination({ currencyCode: "USD" }), "PAYOUT_DESTINATION_MISSING");
    });
  },
  ["Connect JSON"],
);
