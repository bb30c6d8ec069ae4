import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { metadataOf, reasonOf, violationsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { nameKey } from "../../services/account/names.ts";
import { refused } from "../support/refused.ts";
import { overBothTransports } from "../support/server.ts";
import { type Office, openOffice } from "./office.ts";

let office: Office;
let names = 0;
const name = () => `Ada ${++names}`;

overBothTransports(
  "profiles",
  async () => {
    office = await openOffice();
    return [office.module];
  },
  (subject) => {
    after(() => office.close());
    const as = (accountId: string) => subject().client(AccountService, { account: accountId });
    const anyone = () => subject().client(AccountService);
    const update = (accountId: string, displayName: string, etag = "", bio = "") =>
      as(accountId).updateProfile({ requestId: newId(), displayName, bio, etag });

    it("are created by the first call, and seen by everybody", async () => {
      const accountId = newId();
      const displayName = name();
      const { profile } = await update(accountId, displayName, "", "I sell clubs.");
      assert.equal(profile?.displayName, displayName);
      assert.equal(profile.bio, "I sell clubs.");
      assert.equal(profile.completedSales, 0);
      assert.deepEqual((await anyone().getProfile({ accountId })).profile, profile);
      assert.deepEqual((await as(accountId).getProfile({})).profile, profile, "no account_id means the caller");
    });

    it("that do not exist are not found", async () => {
      const accountId = newId();
      const error = await refused(anyone().getProfile({ accountId }), "ACCOUNT_NOT_FOUND", Code.NotFound);
      assert.equal(metadataOf(error).account_id, accountId);
      await refused(as(accountId).getProfile({}), "ACCOUNT_NOT_FOUND");
      await refused(anyone().getProfile({}), "TOKEN_MISSING", Code.Unauthenticated);
    });

    it("come many at once, in the order asked for", async () => {
      const [a, b] = [newId(), newId()];
      await update(a, name());
      await update(b, name());
      const { profiles } = await anyone().batchGetProfiles({ accountIds: [b, newId(), a] });
      assert.deepEqual(
        profiles.map((profile) => profile.accountId),
        [b, a],
      );
    });

    it("change only with the etag last read", async () => {
      const accountId = newId();
      const first = (await update(accountId, name())).profile;
      const second = (await update(accountId, name(), first?.etag)).profile;
      assert.notEqual(second?.etag, first?.etag);
      const stale = await refused(update(accountId, name(), first?.etag), "ETAG_MISMATCH", Code.Aborted);
      assert.equal(metadataOf(stale).etag, second?.etag);
      await refused(update(accountId, name(), ""), "ETAG_MISMATCH");
      await refused(update(newId(), name(), "1"), "ETAG_MISMATCH");
      assert.deepEqual((await anyone().getProfile({ accountId })).profile, second);
    });

    it("have one winner among many who read the same etag", async () => {
      const accountId = newId();
      await update(accountId, name());
      const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => update(accountId, name(), "1")));
      const lost = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reasonOf(reason));
      assert.deepEqual(lost, Array(19).fill("ETAG_MISMATCH"));
    });

    it("have names of their own, whatever the case or the form of the letters", async () => {
      const displayName = `Straße ${++names}`;
      const owner = newId();
      await update(owner, displayName);
      for (const alike of [displayName.toUpperCase(), displayName.replace(" ", "  "), displayName.replace("S", "\u200bＳ")]) {
        await refused(update(newId(), alike), "DISPLAY_NAME_TAKEN", Code.AlreadyExists);
      }
      const other = newId();
      await update(other, name());
      await refused(update(other, displayName, "1"), "DISPLAY_NAME_TAKEN");
      await update(owner, displayName.toUpperCase(), "1");
    });

    it("of one name have one winner among many accounts", async () => {
      const displayName = name();
      const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => update(newId(), displayName)));
      const lost = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reasonOf(reason));
      assert.deepEqual(lost, Array(19).fill("DISPLAY_NAME_TAKEN"));
    });

    it("have names that show something and steer nothing", async () => {
      for (const unfit of ["\u200b\u200b\u200b", "\u00a0Ada", "Ada\u3000", "A\u202eda", "A\u2028da", " Ada", "A\nda", "A"]) {
        const error = await refused(update(newId(), unfit), "INVALID_REQUEST", Code.InvalidArgument);
        assert.equal(violationsOf(error)[0]?.field, "display_name", JSON.stringify(unfit));
      }
    });

    it("get the first answer again under the same request_id, and none for another request", async () => {
      const accountId = newId();
      const request = { requestId: newId(), displayName: name() };
      const first = await as(accountId).updateProfile(request);
      await update(accountId, name(), "1");
      assert.deepEqual(await as(accountId).updateProfile(request), first);
      await refused(as(accountId).updateProfile({ ...request, bio: "other" }), "REQUEST_ID_REUSED", Code.AlreadyExists);
    });

    it("are told as they are now", async () => {
      const accountId = newId();
      await update(accountId, name());
      await update(accountId, name(), "1");
      const rows = await office.database.sql
        .selectFrom("outbox")
        .select(["type", "sequence"])
        .where("aggregate_id", "=", accountId)
        .execute();
      assert.deepEqual(rows, [
        { type: "marketplace.account.v1.ProfileUpdated", sequence: 1 },
        { type: "marketplace.account.v1.ProfileUpdated", sequence: 2 },
      ]);
    });

    it("cannot be suspended yet", async () => {
      const operator = subject().client(AccountService, { account: newId(), operator: true });
      const request = { requestId: newId(), accountId: newId(), note: "spam" };
      await refused(operator.suspendAccount(request), "UNIMPLEMENTED", Code.Unimplemented);
    });
  },
  ["Connect JSON"],
);

describe("the key of a name", () => {
  it("is the same for names that read alike", () => {
    assert.equal(nameKey("Ｋenji  Ito"), nameKey("KENJI ito"));
    assert.equal(nameKey("ΟΔΥΣΣΕΥΣ"), nameKey("Οδυσσευς"));
    assert.notEqual(nameKey("Kenji"), nameKey("Kenja"));
    assert.equal(nameKey("\u200b \u2060"), "");
  });
});
