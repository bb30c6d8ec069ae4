import assert from "node:assert/strict";
import { connect } from "node:net";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition, CreateListingRequestSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { demo } from "../support/marketplace.ts";
import { difference, type Served, serveMarketplace, type Who } from "./served.ts";
import { type Answer, assertRefused, type Body, type Method, type Way } from "./ways.ts";

const { createListing, updateListing, withdrawListing, listSellerListings, listBrands, batchCreateListings } =
  CatalogService.method;
const { placeOrder, shipOrder, confirmOrder, listOrders, getOrder } = OrderService.method;
const { listStatementEntries, listPayouts, createPayout } = PaymentService.method;
const { updateProfile, createAddress, listAddresses, listRatings, deleteAddress, getProfile } = AccountService.method;

const USD = (amountMinor: bigint) => ({ currencyCode: "USD", amountMinor });
const draft = (title = "A lamp") => ({ title, categoryId: "lamps", condition: Condition.GOOD, price: USD(5000n) });

describe("Bad input at the whole marketplace", function () {
  this.timeout(60_000);
  let served: Served;
  let own: string;
  let addressId: string;
  let adasAddressId: string;
  let orderId: string;
  let fresh: { listingId: string; etag: string; staleEtag: string };

  const publish = async (seller: string, title?: string): Promise<string> => {
    const answer = await served.ok(seller, createListing, { requestId: newId(), publish: true, listing: draft(title) });
    return answer.listing.listingId;
  };
  const purchase = (listingId: string, more: object = {}) => ({
    requestId: newId(),
    addressId,
    paymentMethodToken: "tok_approved",
    lines: [{ listingId, unitPrice: USD(5000n) }],
    ...more,
  });

  before(async () => {
    served = await serveMarketplace();
    addressId = (await served.ok("ben", listAddresses, {})).addresses[0].addressId;
    adasAddressId = (await served.ok("ada", listAddresses, {})).addresses[0].addressId;
    own = await publish("ada");
    await publish("ada", "Another lamp");
    const paid = await served.ok("ben", placeOrder, purchase(await publish("ada")));
    orderId = paid.order.orderId;
    const { listing } = await served.ok("ada", createListing, { requestId: newId(), listing: draft() });
    const changed = await served.ok("ada", updateListing, {
      requestId: newId(),
      listingId: listing.listingId,
      etag: listing.etag,
      title: "A better lamp",
    });
    fresh = { listingId: listing.listingId, etag: changed.listing.etag, staleEtag: listing.etag };
  });
  after(() => served.stopBalanced());

  /** The same refusal in every way of calling, and no trace of any. */
  async function refusedEveryWay(
    code: Code,
    reason: string,
    call: (way: Way) => Promise<Answer>,
    check: (answer: Answer) => void = () => {},
  ): Promise<void> {
    await served.leavingNothing(async () => {
      for (const way of served.ways) {
        const answer = await call(way);
        assertRefused(answer, code, reason);
        check(answer);
      }
    });
  }

  it("is looked for in every table: a good command leaves rows in several databases", async () => {
    const before = await served.kept();
    await publish("ada");
    const places = new Set(difference(before, await served.kept()).map((change) => change.split(" ")[0]));
    for (const place of ["+catalog.listing", "+catalog.replay", "+inventory.stock", "+catalog.outbox"]) {
      assert.ok(places.has(place), `${place} in ${[...places]}`);
    }
  });

  describe("refuses, in every protocol,", () => {
    it("a purchase of one's own listing", () =>
      refusedEveryWay(
        Code.FailedPrecondition,
        "OWN_LISTING",
        (way) => served.call("ada", placeOrder, purchase(own, { addressId: adasAddressId }), { way }),
        ({ metadata }) => assert.equal(metadata.listing_id, own),
      ));

    it("a stale etag of a listing, whether it was right once or never, and names the right one", async () => {
      for (const etag of [fresh.staleEtag, "999999999999999999"]) {
        await refusedEveryWay(
          Code.Aborted,
          "ETAG_MISMATCH",
          (way) => served.call("ada", updateListing, { requestId: newId(), listingId: fresh.listingId, etag, title: "X" }, { way }),
          ({ metadata }) => assert.equal(metadata.etag, fresh.etag),
        );
      }
    });

    it("a stale etag of a profile", () =>
      refusedEveryWay(Code.Aborted, "ETAG_MISMATCH", (way) =>
        served.call("ada", updateProfile, { requestId: newId(), displayName: "Ada", etag: "77" }, { way }),
      ));

    it("what belongs to somebody else, as if it were not there", async () => {
      const others: [Who, Method, object, Code, string][] = [
        ["tess", placeOrder, purchase(own), Code.NotFound, "ADDRESS_NOT_FOUND"],
        ["tess", deleteAddress, { requestId: newId(), addressId }, Code.NotFound, "ADDRESS_NOT_FOUND"],
        ["tess", getOrder, { orderId }, Code.NotFound, "ORDER_NOT_FOUND"],
        ["tess", shipOrder, { requestId: newId(), orderId, carrier: "UPS" }, Code.NotFound, "ORDER_NOT_FOUND"],
        ["ben", shipOrder, { requestId: newId(), orderId, carrier: "UPS" }, Code.NotFound, "ORDER_NOT_FOUND"],
        ["tess", updateListing, { requestId: newId(), ...fresh, title: "X" }, Code.NotFound, "LISTING_NOT_FOUND"],
        ["tess", withdrawListing, { requestId: newId(), listingId: own }, Code.PermissionDenied, "NOT_YOUR_LISTING"],
      ];
      for (const [who, method, request, code, reason] of others) {
        await refusedEveryWay(code, reason, (way) => served.call(who, method, request, { way }));
      }
    });

    it("a step that the order's state does not allow", () =>
      refusedEveryWay(
        Code.FailedPrecondition,
        "ORDER_STATE_CONFLICT",
        (way) => served.call("ben", confirmOrder, { requestId: newId(), orderId, rating: { stars: 5 } }, { way }),
        ({ metadata }) => assert.equal(metadata.order_id, orderId),
      ));

    it("a listing that nobody offers, a draft that is not the buyer's to see, and one that is off sale", async () => {
      const gone = await publish("ada", "Soon gone");
      await served.ok("ada", withdrawListing, { requestId: newId(), listingId: gone });
      const refuses = (listingId: string, code: Code, reason: string) =>
        refusedEveryWay(code, reason, (way) => served.call("ben", placeOrder, purchase(listingId), { way }));
      await refuses(newId(), Code.NotFound, "LISTING_NOT_FOUND");
      await refuses(fresh.listingId, Code.NotFound, "LISTING_NOT_FOUND");
      await refuses(gone, Code.FailedPrecondition, "LISTING_NOT_AVAILABLE");
    });

    it("no token, an expired one, one of another key, and one changed by a character", async () => {
      const command = () => purchase(own);
      const expired = await served.token("ben", -60_000);
      const foreign = await signAccountToken(await temporaryKeys(), { accountId: demo("ben").account });
      const good = await served.token("ben");
      const changed = good.replace(/\.(.)/, (_, first) => `.${first === "e" ? "f" : "e"}`);
      for (const [token, reason] of [
        [undefined, "TOKEN_MISSING"],
        [expired, "TOKEN_EXPIRED"],
        [foreign, "TOKEN_INVALID"],
        [changed, "TOKEN_INVALID"],
      ] as const) {
        await refusedEveryWay(Code.Unauthenticated, reason, (way) => served.call(undefined, placeOrder, command(), { way, token }));
      }
    });

    it("an account where only an operator may, and an expired operator before that", async () => {
      const { retryDeadLetter } = OpsService.method;
      const request = { requestId: newId(), service: "payment", deadLetterId: newId() };
      await refusedEveryWay(Code.PermissionDenied, "PERMISSION_DENIED", (way) =>
        served.call("ben", retryDeadLetter, request, { way }),
      );
      const token = await served.token("olga", -60_000);
      await refusedEveryWay(Code.Unauthenticated, "TOKEN_EXPIRED", (way) =>
        served.call(undefined, retryDeadLetter, request, { way, token }),
      );
    });

    it("fields that break their rules, each named", async () => {
      const rules: [Who, Method, object, string[]][] = [
        ["ben", placeOrder, {}, ["request_id", "lines", "address_id", "payment_method_token"]],
        ["ben", placeOrder, purchase(own, { requestId: "with space" }), ["request_id"]],
        ["ben", placeOrder, purchase(own, { requestId: "x".repeat(65) }), ["request_id"]],
        ["ben", placeOrder, purchase(own, { paymentMethodToken: "4242424242424242" }), ["payment_method_token"]],
        ["ben", placeOrder, purchase(own, { lines: [{ listingId: own, units: 101, unitPrice: USD(1n) }] }), ["lines[0].units"]],
        ["ben", placeOrder, purchase(own, { lines: [{ listingId: own }] }), ["lines[0].unit_price"]],
        ["ben", placeOrder, purchase("not-an-id"), ["lines[0].listing_id"]],
        ["ben", placeOrder, { ...purchase(own), lines: Array(21).fill(purchase(own).lines[0]) }, ["lines"]],
        ["ben", placeOrder, { ...purchase(own), lines: Array(2).fill(purchase(own).lines[0]) }, ["lines[1].listing_id"]],
        ["ada", createListing, { requestId: newId() }, ["listing"]],
        ["ada", createListing, { requestId: newId(), listing: draft("x".repeat(301)) }, ["listing.title"]],
        ["ada", createListing, { requestId: newId(), listing: draft("line\nfeed") }, ["listing.title"]],
        ["ada", createListing, { requestId: newId(), listing: { ...draft(), condition: 99 } }, ["listing.condition"]],
        ["ada", batchCreateListings, { requestId: newId(), listings: Array(251).fill(draft()) }, ["listings"]],
        ["ben", confirmOrder, { requestId: newId(), orderId, rating: { stars: 6 } }, ["rating.stars"]],
        ["ben", listOrders, { pageSize: 101 }, ["page_size"]],
      ];
      await served.leavingNothing(async () => {
        for (const [who, method, request, fields] of rules) {
          for (const way of served.ways) {
            // protobuf JSON has names for enum values it knows; another one is refused as unreadable.
            if (way.name === "Connect JSON" && fields[0] === "listing.condition") continue;
            const answer = await served.call(who, method, request, { way });
            assertRefused(answer, Code.InvalidArgument, "INVALID_REQUEST");
            assert.deepEqual(answer.fields, fields, `${method.name} over ${way.name}`);
          }
        }
      });
    });
  });

  describe("refuses a page token", () => {
    /** Every list that has pages and can be read, with the filter that changes what a token is good for. */
    const lists: [Who, Method, object, object | undefined][] = [
      ["ada", listSellerListings, { sellerId: demo("ada").account }, { sellerId: demo("tess").account }],
      [undefined, listBrands, {}, undefined],
      [undefined, SearchService.method.searchListings, { query: "" }, { query: "lamp" }],
      ["ben", listOrders, {}, { role: 2 }],
      ["ada", listStatementEntries, { currencyCode: "USD" }, { currencyCode: "JPY" }],
      ["ada", listPayouts, {}, undefined],
      [undefined, listRatings, { accountId: demo("ada").account }, { accountId: demo("tess").account }],
      ["olga", OpsService.method.listJobs, { service: "search" }, { service: "payment" }],
      ["olga", OpsService.method.listDeadLetters, { service: "search" }, { service: "payment" }],
    ];
    const made = new Map<Method, string>();

    before(async () => {
      for (const [who, method, request] of lists) {
        const { nextPageToken } = await served.ok(who, method, { ...request, pageSize: 1 });
        if (nextPageToken) made.set(method, nextPageToken);
      }
      assert.ok(made.size >= 3, [...made.keys()].map((method) => method.name).join());
    });

    for (const [who, method, request, otherFilter] of lists) {
      it(`of ${method.name} that was forged, changed, cut, or made for something else`, async () => {
        const good = made.get(method);
        const flipped = good && `${good.slice(0, 4)}${good[4] === "A" ? "B" : "A"}${good.slice(5)}`;
        const foreign = [...made].find(([other]) => other !== method)?.[1];
        const plain = Buffer.from(JSON.stringify([9e15, "2026", newId()])).toString("base64url");
        const tokens = [plain, "x", "🙂", "A".repeat(2048), flipped, good?.slice(0, -2), good && `${good}AA`, foreign];
        for (const pageToken of tokens.filter((token) => token !== undefined)) {
          await refusedEveryWay(Code.InvalidArgument, "PAGE_TOKEN_INVALID", (way) =>
            served.call(who, method, { ...request, pageToken }, { way }),
          );
        }
        if (good !== undefined) {
          if (otherFilter !== undefined) {
            await refusedEveryWay(Code.InvalidArgument, "PAGE_TOKEN_INVALID", (way) =>
              served.call(who, method, { ...request, ...otherFilter, pageToken: good }, { way }),
            );
          }
          await served.ok(who, method, { ...request, pageToken: good, pageSize: 2 });
        }
        const long = await served.call(who, method, { ...request, pageToken: "A".repeat(2049) });
        assertRefused(long, Code.InvalidArgument, "INVALID_REQUEST");
      });
    }
  });

  describe("refuses a body", () => {
    const listing = { title: "A lamp", categoryId: "lamps", condition: "CONDITION_GOOD" };
    const price = { currencyCode: "USD", amountMinor: "5000" };
    const json = (value: object) => JSON.stringify({ requestId: newId(), publish: true, ...value });
    const good = () => json({ listing: { ...listing, price } });

    async function refuses(
      body: Body,
      code: Code,
      reason: string,
      headers: Record<string, string> = {},
      method: Method = createListing,
    ): Promise<Answer> {
      const answer = await served.leavingNothing(() => served.post("ada", method, body, headers));
      assertRefused(answer, code, reason);
      return answer;
    }

    it("with a field that does not exist, at the top or deep inside, and names it", async () => {
      for (const [body, field] of [
        [json({ listing: { ...listing, price }, color: "red" }), "color"],
        [json({ listing: { ...listing, price, colour: "red" } }), "colour"],
        [json({ listing: { ...listing, price: { ...price, float: 1 } } }), "float"],
        [json({ listing: { ...listing, price }, __proto__x: {} }), "__proto__x"],
      ] as const) {
        const { metadata } = await refuses(body, Code.InvalidArgument, "UNKNOWN_FIELD");
        assert.equal(metadata.field, field);
      }
    });

    it("with a wrong type", async () => {
      for (const body of [
        json({ listing: "a lamp" }),
        json({ listing: [listing] }),
        json({ listing: { ...listing, price: 5000 } }),
        json({ listing: { ...listing, title: 7, price } }),
        json({ listing: { ...listing, title: ["A lamp"], price } }),
        json({ listing: { ...listing, condition: "SHINY", price } }),
        json({ listing: { ...listing, condition: 1.5, price } }),
        json({ listing: { ...listing, units: "many", price } }),
        json({ listing: { ...listing, units: -1, price } }),
        json({ listing: { ...listing, units: 4294967296, price } }),
        json({ listing: { ...listing, price }, publish: "true" }),
        json({ listing: { ...listing, price }, publish: 1 }),
        json({ listing: { ...listing, price }, requestId: 7 }),
        "[]",
        "7",
        '"text"',
        "null",
      ]) {
        await refuses(body, Code.InvalidArgument, "MALFORMED_REQUEST");
      }
      await refuses(JSON.stringify({ ...purchase(own), lines: [null] }), Code.InvalidArgument, "MALFORMED_REQUEST", {}, placeOrder);
    });

    it("with one field twice, by either of its names", async () => {
      const twice = `{"requestId":"${newId()}","request_id":"${newId()}","listing":${JSON.stringify({ ...listing, price })}}`;
      await refuses(twice, Code.InvalidArgument, "MALFORMED_REQUEST");
    });

    it("that ends too early, at any place", async () => {
      const whole = good();
      for (const length of [0, 1, 10, Math.floor(whole.length / 2), whole.length - 1]) {
        await refuses(whole.slice(0, length), Code.InvalidArgument, "MALFORMED_REQUEST");
      }
      const message = create(CreateListingRequestSchema, { requestId: newId(), publish: true, listing: draft() });
      const bytes = toBinary(CreateListingRequestSchema, message);
      for (let length = 1; length < bytes.length; length += 7) {
        const headers = { "content-type": "application/proto" };
        const cut = Buffer.from(bytes.subarray(0, length));
        const answer = await served.leavingNothing(() => served.post("ada", createListing, cut, headers));
        // Cut between two fields it is a whole message that lacks some.
        assert.equal(answer.code, Code.InvalidArgument);
        assert.match(answer.reason, /^(MALFORMED|INVALID)_REQUEST$/, `cut at ${length}`);
      }
    });

    it("of which the connection brings only a part", async () => {
      const whole = good();
      const token = await served.token("ada");
      await served.leavingNothing(async () => {
        const socket = connect(Number(new URL(served.url).port), "127.0.0.1");
        socket.write(
          `POST /${createListing.parent.typeName}/CreateListing HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n` +
            `authorization: Bearer ${token}\r\ncontent-length: ${whole.length}\r\n\r\n${whole.slice(0, -1)}`,
        );
        await new Promise((resolve) => setTimeout(resolve, 50));
        socket.destroy();
        await new Promise((resolve) => setTimeout(resolve, 50));
      });
    });

    it("that is no text, or nested without end", async () => {
      await refuses(Buffer.from([0xff, 0xfe, 0x00]), Code.InvalidArgument, "MALFORMED_REQUEST");
      await refuses("[".repeat(30_000), Code.InvalidArgument, "MALFORMED_REQUEST");
      await refuses(`{"listing":`.repeat(3_000), Code.InvalidArgument, "MALFORMED_REQUEST");
    });

    it("larger than the method takes, promised or not, packed or not", async () => {
      const large = json({ listing: { ...listing, description: "x".repeat(70_000), price } });
      const answer = await refuses(large, Code.ResourceExhausted, "REQUEST_TOO_LARGE");
      assert.equal(answer.metadata.max_bytes, "65536");
      await refuses(new Blob([large]).stream(), Code.ResourceExhausted, "REQUEST_TOO_LARGE");
      await refuses(gzipSync(large), Code.ResourceExhausted, "REQUEST_TOO_LARGE", { "content-encoding": "gzip" });
      const huge = json({ listings: Array(100).fill({ ...listing, description: "x".repeat(45_000), price }) });
      await refuses(huge, Code.ResourceExhausted, "REQUEST_TOO_LARGE", {}, batchCreateListings);
      for (const way of served.ways) {
        const request = { requestId: newId(), listing: { ...draft(), description: "x".repeat(70_000) } };
        const over = await served.leavingNothing(() => served.call("ada", createListing, request, { way }));
        assertRefused(over, Code.ResourceExhausted, "REQUEST_TOO_LARGE");
      }
    });

    it("that is not what its headers say", async () => {
      await refuses(good(), Code.InvalidArgument, "MALFORMED_REQUEST", { "content-type": "application/proto" });
      await refuses(good(), Code.InvalidArgument, "MALFORMED_REQUEST", { "content-encoding": "gzip" });
      const { status, reason } = await served.leavingNothing(() =>
        served.post("ada", createListing, good(), { "content-type": "text/plain" }),
      );
      assert.deepEqual([status, reason], [415, "PROTOCOL_UNSUPPORTED"]);
    });

    it("with half a surrogate pair, which is no text in UTF-8", async () => {
      const body = good().replace("A lamp", "A lamp \\ud83d");
      const answer = await served.leavingNothing(() => served.post("ada", createListing, body));
      assert.equal(answer.code, Code.InvalidArgument, JSON.stringify(answer));
    });
  });

  it("refuses a command in a URL, where a page could place it", async () => {
    const message = encodeURIComponent(JSON.stringify({ requestId: newId(), displayName: "Mallory" }));
    await served.leavingNothing(async () => {
      const url = `${served.url}/${updateProfile.parent.typeName}/UpdateProfile?encoding=json&message=${message}`;
      const response = await fetch(url, { headers: { authorization: `Bearer ${await served.token("ben")}` } });
      assert.equal(response.status, 405);
      const { details } = (await response.json()) as { details: { type: string }[] };
      assert.equal(details[0]?.type, "google.rpc.ErrorInfo");
    });
  });

  it("does not believe a caller who says to be a service, or to act for another", async () => {
    await served.leavingNothing(async () => {
      const forged = { "x-souk-account": demo("ada").account };
      const answer = await served.post("ben", getProfile, "{}", forged);
      assert.deepEqual((answer.json as { profile: { accountId: string } }).profile.accountId, demo("ben").account);
      const asService = await served.post("ben", createPayout, "{}", { ...forged, "x-souk-service-token": "x" });
      assertRefused(asService, Code.Unauthenticated, "TOKEN_INVALID");
      const accountsToken = { "x-souk-service-token": await served.token("olga") };
      assertRefused(await served.post("ben", createAddress, "{}", accountsToken), Code.Unauthenticated, "TOKEN_INVALID");
    });
  });
});
