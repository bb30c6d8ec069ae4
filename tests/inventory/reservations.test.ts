import assert from "node:assert/strict";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { InventoryService, ReservationState } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { statements } from "#runtime/database/statements.ts";
import { metadataOf, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { refused } from "../support/refused.ts";
import { overBothTransports } from "../support/server.ts";
import { offer, openStorehouse, reserve, type Storehouse, unitsOf } from "./storehouse.ts";

const { PENDING, COMMITTED, RELEASED, EXPIRED } = ReservationState;
let house: Storehouse;

overBothTransports(
  "reservations",
  async () => {
    house = await openStorehouse();
    return [house.module];
  },
  (subject) => {
    after(() => house.close());
    const order = () => subject().client(InventoryService, { service: "order" });
    const anyone = () => subject().client(InventoryService);
    const offered = (units: number) => offer(subject().client(InventoryService, { service: "catalog" }), units);
    const units = (listingId: string) => unitsOf(anyone(), listingId);
    const reserved = async (...lines: [string, number][]) => {
      const reservationId = newId();
      await reserve(order(), house.clock, reservationId, lines);
      return reservationId;
    };
    const commit = (reservationId: string, requestId = newId()) => order().commitReservation({ requestId, reservationId });
    const release = (reservationId: string, requestId = newId()) => order().releaseReservation({ requestId, reservationId });

    it("take units of every line", async () => {
      const [a, b] = [await offered(3), await offered(1)];
      const reservationId = newId();
      const lines = [
        [b, 1],
        [a, 2],
      ] as const;
      const { reservation } = await reserve(order(), house.clock, reservationId, lines);
      assert.equal(reservation?.state, PENDING);
      assert.deepEqual(await units(a), [1, 2, 0]);
      assert.deepEqual(await units(b), [0, 1, 0]);
      assert.deepEqual((await order().getReservation({ reservationId })).reservation, reservation);
    });

    it("take nothing when one line is out of stock, and say which", async () => {
      const [a, b] = [await offered(3), await offered(1)];
      const wanted = [
        [a, 2],
        [b, 2],
      ] as const;
      const error = await refused(reserve(order(), house.clock, newId(), wanted), "OUT_OF_STOCK", Code.FailedPrecondition);
      assert.deepEqual({ ...metadataOf(error) }, { listing_id: b, available_units: "1" });
      assert.deepEqual(await units(a), [3, 0, 0]);
    });

    it("are refused for a listing without stock", async () => {
      const listingId = await offered(1);
      const lines = [
        [listingId, 1],
        [newId(), 1],
      ] as const;
      await refused(reserve(order(), house.clock, newId(), lines), "LISTING_NOT_FOUND", Code.NotFound);
      assert.deepEqual(await units(listingId), [1, 0, 0]);
    });

    it("name a listing once", async () => {
      const a = await offered(3);
      const lines = [
        [a, 1],
        [a, 1],
      ] as const;
      await refused(reserve(order(), house.clock, newId(), lines), "INVALID_REQUEST", Code.InvalidArgument);
    });

    it("last from a second to a day", async () => {
      const a = await offered(1);
      for (const lifetimeMs of [-1, 999, 24 * 3600 * 1000 + 1]) {
        const late = reserve(order(), house.clock, newId(), [[a, 1]], { lifetimeMs });
        await refused(late, "EXPIRE_TIME_INVALID", Code.InvalidArgument);
        await refused(reserve(order(), house.clock, newId(), [[a, 2]], { lifetimeMs }), "EXPIRE_TIME_INVALID");
      }
      assert.deepEqual(await units(a), [1, 0, 0]);
      await reserve(order(), house.clock, newId(), [[a, 1]], { lifetimeMs: 1_000 });
    });

    it("are answered again for the same lines, and refused for others", async () => {
      const [a, b] = [await offered(1), await offered(1)];
      const reservationId = await reserved([a, 1]);
      const { reservation } = await reserve(order(), house.clock, reservationId, [[a, 1]]);
      assert.equal(reservation?.state, PENDING);
      assert.deepEqual(await units(a), [0, 1, 0]);
      const other = reserve(order(), house.clock, reservationId, [[b, 1]]);
      const error = await refused(other, "RESERVATION_CONFLICT", Code.AlreadyExists);
      assert.equal(metadataOf(error).reservation_id, reservationId);
      assert.deepEqual(await units(b), [1, 0, 0]);
    });

    it("get the first answer again when they took the last unit", async () => {
      const a = await offered(1);
      const [reservationId, requestId] = [newId(), newId()];
      const first = await reserve(order(), house.clock, reservationId, [[a, 1]], { requestId });
      await release(reservationId);
      await reserved([a, 1]);
      assert.deepEqual(await reserve(order(), house.clock, reservationId, [[a, 1]], { requestId }), first);
      const other = reserve(order(), house.clock, newId(), [[a, 1]], { requestId });
      await refused(other, "REQUEST_ID_REUSED", Code.AlreadyExists);
    });

    it("that were refused are decided anew when they are repeated", async () => {
      const a = await offered(1);
      const first = await reserved([a, 1]);
      const [reservationId, requestId] = [newId(), newId()];
      await refused(reserve(order(), house.clock, reservationId, [[a, 1]], { requestId }), "OUT_OF_STOCK");
      await release(first);
      const { reservation } = await reserve(order(), house.clock, reservationId, [[a, 1]], { requestId });
      assert.equal(reservation?.state, PENDING);
      assert.deepEqual((await reserve(order(), house.clock, reservationId, [[a, 1]], { requestId })).reservation, reservation);
    });

    it("of the last units are sold without a look at the stock, unless its seller changed it meanwhile, and what is told agrees with it", async () => {
      const texts: string[] = [];
      const listen = (message: unknown) => void texts.push((message as { sql: string }).sql);
      for (const sellerMore of [0, 3]) {
        const [a, b, sellerId] = [await offered(1), newId(), newId()];
        const catalog = subject().client(InventoryService, { service: "catalog" });
        await catalog.setUnits({ requestId: newId(), listingId: b, sellerId, units: 2 });
        const reservationId = await reserved([a, 1], [b, 2]);
        if (sellerMore > 0) await catalog.setUnits({ requestId: newId(), listingId: b, sellerId, units: sellerMore });
        texts.length = 0;
        statements.subscribe(listen);
        const { reservation } = await commit(reservationId);
        statements.unsubscribe(listen);
        assert.equal(reservation?.state, COMMITTED);
        assert.equal(
          texts.some((sql) => /^select .*stock/.test(sql)),
          sellerMore > 0,
        );
        assert.deepEqual(await units(a), [0, 0, 1]);
        assert.deepEqual(await units(b), [sellerMore, 0, 2]);
        for (const listingId of [a, b]) {
          const told = (await house.told()).get(listingId)?.at(-1);
          const { availableUnits, reservedUnits, soldUnits } = told?.stock ?? {};
          assert.deepEqual([availableUnits, reservedUnits, soldUnits], await units(listingId));
          assert.equal(told?.reservationId, reservationId);
        }
      }
    });

    it("are committed once and for good", async () => {
      const a = await offered(2);
      const reservationId = await reserved([a, 2]);
      const { reservation } = await commit(reservationId);
      assert.equal(reservation?.state, COMMITTED);
      assert.equal(timestampMs(reservation.endTime as never), house.clock.now());
      assert.equal((await commit(reservationId)).reservation?.state, COMMITTED);
      await refused(release(reservationId), "RESERVATION_COMMITTED", Code.FailedPrecondition);
      house.clock.advance(120_000);
      await house.jobs.runDue();
      assert.deepEqual(await units(a), [0, 0, 2]);
    });

    it("give their units back when released, for the next call to take", async () => {
      const a = await offered(2);
      const reservationId = await reserved([a, 2]);
      assert.equal((await release(reservationId)).reservation?.state, RELEASED);
      await reserved([a, 2]);
      assert.equal((await release(reservationId)).reservation?.state, RELEASED);
      assert.deepEqual(await units(a), [0, 2, 0]);
      await refused(commit(reservationId), "RESERVATION_RELEASED", Code.FailedPrecondition);
    });

    it("expire by themselves", async () => {
      const a = await offered(1);
      const reservationId = await reserved([a, 1]);
      house.clock.advance(59_999);
      await house.jobs.runDue();
      assert.deepEqual(await units(a), [0, 1, 0]);
      house.clock.advance(1);
      await house.jobs.runDue();
      assert.deepEqual(await units(a), [1, 0, 0]);
      assert.equal((await order().getReservation({ reservationId })).reservation?.state, EXPIRED);
      await refused(commit(reservationId), "RESERVATION_EXPIRED", Code.FailedPrecondition);
      assert.equal((await release(reservationId)).reservation?.state, EXPIRED);
    });

    it("are not committed after their time even when their units have not gone back yet", async () => {
      const a = await offered(1);
      const reservationId = await reserved([a, 1]);
      // The runner has nothing to do now, so that it does not look when the time comes.
      await house.jobs.runDue();
      house.clock.advance(60_000);
      await refused(commit(reservationId), "RESERVATION_EXPIRED");
      assert.equal((await release(reservationId)).reservation?.state, RELEASED);
      await house.jobs.runDue();
      assert.deepEqual(await units(a), [1, 0, 0]);
    });

    it("are not expired by a job that comes early, which waits instead", async () => {
      const a = await offered(1);
      const reservationId = await reserved([a, 1]);
      await house.expire.run({ key: reservationId, attempt: 1, signal: new AbortController().signal });
      assert.deepEqual(await units(a), [0, 1, 0]);
      house.clock.advance(60_000);
      await house.jobs.runDue();
      assert.deepEqual(await units(a), [1, 0, 0]);
    });

    it("leave no job behind when they end", async () => {
      const a = await offered(2);
      await commit(await reserved([a, 1]));
      await release(await reserved([a, 1]));
      const jobs = await house.database.sql.selectFrom("job").select("kind").where("kind", "=", house.expire.kind).execute();
      assert.deepEqual(jobs, []);
    });

    it("released before they are made are refused when they come late", async () => {
      const a = await offered(1);
      const reservationId = newId();
      const { reservation } = await release(reservationId);
      assert.equal(reservation?.state, RELEASED);
      assert.deepEqual(reservation.lines, []);
      await refused(reserve(order(), house.clock, reservationId, [[a, 1]]), "RESERVATION_CONFLICT");
      await refused(commit(reservationId), "RESERVATION_RELEASED");
      assert.deepEqual(await units(a), [1, 0, 0]);
    });

    it("that do not exist are not found", async () => {
      await refused(commit(newId()), "RESERVATION_NOT_FOUND", Code.NotFound);
      await refused(order().getReservation({ reservationId: newId() }), "RESERVATION_NOT_FOUND", Code.NotFound);
    });

    it("end once when commit, release and expiry come at the same moment", async () => {
      const a = await offered(8);
      const ids = Array.from({ length: 8 }, () => newId());
      const lifetimeMs = (index: number) => (index % 2 === 0 ? 60_000 : 120_000);
      await Promise.all(ids.map((id, index) => reserve(order(), house.clock, id, [[a, 1]], { lifetimeMs: lifetimeMs(index) })));
      house.clock.advance(60_000);
      const ends = ids.flatMap((id) => [commit(id), release(id), commit(id), release(id)]);
      const outcomes = await Promise.allSettled([...ends, house.jobs.runDue()]);
      const unexpected = outcomes.filter(
        ({ status, reason }: { status: string; reason?: unknown }) =>
          status === "rejected" && !/^RESERVATION_(COMMITTED|RELEASED|EXPIRED)$/.test(reasonOf(reason) ?? ""),
      );
      assert.deepEqual(unexpected, []);
      const states = await Promise.all(
        ids.map(async (id) => (await order().getReservation({ reservationId: id })).reservation?.state),
      );
      const sold = states.filter((state) => state === COMMITTED).length;
      assert.ok(!states.includes(PENDING));
      assert.ok(sold <= 4, "none is sold after its time");
      assert.deepEqual(await units(a), [8 - sold, 0, sold]);
      const told = (await house.told()).get(a) ?? [];
      assert.equal(told.length, 1 + 8 + 8, "offered, then reserved once and ended once each");
    });

    it("of one unit have one winner among 200 buyers", async () => {
      const a = await offered(1);
      const outcomes = await Promise.allSettled(Array.from({ length: 200 }, () => reserved([a, 1])));
      const reasons = outcomes.filter((outcome) => outcome.status === "rejected").map(({ reason }) => reasonOf(reason));
      assert.equal(reasons.length, 199);
      assert.deepEqual([...new Set(reasons)], ["OUT_OF_STOCK"]);
      assert.deepEqual(await units(a), [0, 1, 0]);
    });

    it("that overlap in opposite orders of their lines all come through", async () => {
      const [a, b] = [await offered(40), await offered(40)];
      const there = Array.from({ length: 20 }, () => reserved([a, 1], [b, 1]));
      const back = Array.from({ length: 20 }, () => reserved([b, 1], [a, 1]));
      await Promise.all([...there, ...back]);
      assert.deepEqual(
        [await units(a), await units(b)],
        [
          [0, 40, 0],
          [0, 40, 0],
        ],
      );
    });

    it("repeated at the same moment are made once", async () => {
      const a = await offered(2);
      const [reservationId, requestId] = [newId(), newId()];
      const tries = Array.from({ length: 20 }, () => reserve(order(), house.clock, reservationId, [[a, 1]], { requestId }));
      const answers = await Promise.all(tries);
      assert.equal(new Set(answers.map((answer) => JSON.stringify(answer, bigintText))).size, 1);
      assert.deepEqual(await units(a), [1, 1, 0]);
    });

    it("are the order service's alone", async () => {
      const a = await offered(1);
      const account = subject().client(InventoryService, { account: newId() });
      await refused(reserve(account, house.clock, newId(), [[a, 1]]), "PERMISSION_DENIED", Code.PermissionDenied);
      await refused(reserve(anyone(), house.clock, newId(), [[a, 1]]), "PERMISSION_DENIED");
    });
  },
  ["Connect JSON"],
);

function bigintText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}
