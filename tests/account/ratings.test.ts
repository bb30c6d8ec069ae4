import assert from "node:assert/strict";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { newId } from "#runtime/ids.ts";
import { refused } from "../support/refused.ts";
import { overBothTransports } from "../support/server.ts";
import { type Office, openOffice } from "./office.ts";

let office: Office;

overBothTransports(
  "ratings of a seller",
  async () => {
    office = await openOffice();
    return [office.module];
  },
  (subject) => {
    after(() => office.close());
    const anyone = () => subject().client(AccountService);
    const withProfile = async (accountId = newId()) => {
      const seller = subject().client(AccountService, { account: accountId });
      await seller.updateProfile({ requestId: newId(), displayName: `Seller ${accountId.slice(-12)}` });
      return accountId;
    };
    const completed = (sellerId: string, stars?: number, comment = "") =>
      office.completed({
        orderId: newId(),
        sellerId,
        endTime: timestampFromMs(office.clock.now()),
        ...(stars === undefined ? {} : { rating: { stars, comment } }),
      });

    it("are counted by stars, and completed sales with and without them", async () => {
      const accountId = await withProfile();
      await completed(accountId, 5);
      await completed(accountId, 5);
      await completed(accountId, 1);
      await completed(accountId);
      const { profile } = await anyone().getProfile({ accountId });
      assert.equal(profile?.completedSales, 4);
      const { oneStar, twoStars, threeStars, fourStars, fiveStars } = profile.ratingTotals ?? {};
      assert.deepEqual([oneStar, twoStars, threeStars, fourStars, fiveStars], [1, 0, 0, 0, 2]);
      assert.equal(profile.etag, "1", "only the owner changes the etag");
    });

    it("count once however often their event comes", async () => {
      const accountId = await withProfile();
      const order = { orderId: newId(), sellerId: accountId, rating: { stars: 3 } };
      const eventId = newId();
      await Promise.all([office.completed(order, eventId), office.completed(order, eventId)]);
      await office.completed(order, eventId);
      const { profile } = await anyone().getProfile({ accountId });
      assert.deepEqual([profile?.completedSales, profile?.ratingTotals?.threeStars], [1, 1]);
    });

    it("are kept for a seller who has no profile yet", async () => {
      const accountId = newId();
      await Promise.all([completed(accountId, 4), completed(accountId, 4)]);
      await refused(anyone().getProfile({ accountId }), "ACCOUNT_NOT_FOUND");
      await withProfile(accountId);
      const { profile } = await anyone().getProfile({ accountId });
      assert.deepEqual([profile?.completedSales, profile?.ratingTotals?.fourStars], [2, 2]);
    });

    it("are listed newest first, in pages that stay in place when one more comes", async () => {
      const accountId = newId();
      for (const comment of ["first", "second", "third"]) {
        office.clock.advance(1_000);
        await completed(accountId, 5, comment);
      }
      const first = await anyone().listRatings({ accountId, pageSize: 2 });
      office.clock.advance(1_000);
      await completed(accountId, 2, "fourth");
      const second = await anyone().listRatings({ accountId, pageSize: 2, pageToken: first.nextPageToken });
      const comments = [...first.ratings, ...second.ratings].map((rating) => rating.comment);
      assert.deepEqual([comments, second.nextPageToken], [["third", "second", "first"], ""]);
      const elsewhere = { accountId: newId(), pageToken: first.nextPageToken };
      await refused(anyone().listRatings(elsewhere), "PAGE_TOKEN_INVALID");
    });
  },
  ["Connect JSON"],
);
