import assert from "node:assert/strict";
import { gunzipSync, gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { GetListingResponseSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { signAccountToken } from "#runtime/tokens.ts";
import { onServer, type Subject } from "../support/server.ts";
import { CREATE_LISTING, connectReason, GET_LISTING, LIST_CATEGORIES, LISTING, raw, request, staged } from "./stage.ts";

describe("a read with GET", () => {
  const { stage, modules } = staged();
  let subject: Subject;
  before(async () => {
    subject = await onServer(modules, "Connect JSON", { corsOrigins: ["https://shop.example"] });
  });
  after(() => subject.stop());
  beforeEach(() => {
    Object.assign(stage, { handled: 0, title: "", handler() {} });
  });
  const get = (query: Record<string, string>, headers: Record<string, string> = {}, path = GET_LISTING) =>
    raw(subject.url, headers, undefined, `${path}?${new URLSearchParams({ connect: "v1", ...query })}`);
  const inJson = { encoding: "json", message: JSON.stringify({ listingId: LISTING }) };

  it("takes its message as JSON, as base64 with and without padding, and compressed", async () => {
    const proto = Buffer.from(request());
    const ways = [
      inJson,
      { encoding: "proto", base64: "1", message: proto.toString("base64") },
      { encoding: "proto", base64: "1", message: proto.toString("base64url") },
      { encoding: "proto", base64: "1", compression: "gzip", message: gzipSync(proto).toString("base64url") },
    ];
    for (const way of ways) {
      const { headers, body } = await get(way);
      assert.equal(headers[":status"], 200);
      const listing =
        way.encoding === "json" ? JSON.parse(body.toString()).listing : fromBinary(GetListingResponseSchema, body).listing;
      assert.equal(listing.listingId, LISTING);
    }
  });

  it("is refused where the method has side effects, and where its message or its encoding is none", async () => {
    const post = await get({ encoding: "json", message: "{}" }, {}, CREATE_LISTING);
    assert.deepEqual([post.headers[":status"], post.headers.allow], [405, "POST"]);
    assert.equal((await get({ encoding: "xml", message: "" })).headers[":status"], 415);
    const refused = await get({ encoding: "json", message: "{" });
    assert.deepEqual([refused.headers[":status"], connectReason(refused.body)], [400, "MALFORMED_REQUEST"]);
    assert.equal(refused.headers["cache-control"], "no-store");
    const bomb = {
      encoding: "proto",
      base64: "1",
      compression: "gzip",
      message: gzipSync(Buffer.alloc(5_000_000)).toString("base64url"),
    };
    assert.equal(connectReason((await get(bomb)).body), "REQUEST_TOO_LARGE");
    assert.equal(stage.handled, 0);
  });

  it("names its answer by an ETag, and answers 304 without a body as long as it is the same", async () => {
    stage.title = "first";
    const first = await get(inJson);
    const etag = String(first.headers.etag);
    assert.match(etag, /^W\/"[\w-]+"$/);
    for (const condition of [etag, etag.replace("W/", ""), `"other", ${etag}`, "*"]) {
      const same = await get(inJson, { "if-none-match": condition });
      assert.deepEqual([same.headers[":status"], same.body.length], [304, 0], condition);
      assert.deepEqual([same.headers.etag, same.headers["cache-control"]], [etag, first.headers["cache-control"]]);
    }
    stage.title = "second";
    const changed = await get(inJson, { "if-none-match": etag });
    assert.equal(changed.headers[":status"], 200);
    assert.notEqual(changed.headers.etag, etag);
  });

  it("keeps its ETag whatever compresses it, and tells caches what it depends on: who asks, what is accepted, and which page asks", async () => {
    stage.title = "x".repeat(5000);
    const plain = await get(inJson);
    const smaller = await get(inJson, { "accept-encoding": "gzip, deflate, br, zstd", origin: "https://shop.example" });
    assert.deepEqual([smaller.headers["content-encoding"], smaller.headers.etag], ["gzip", plain.headers.etag]);
    assert.deepEqual(gunzipSync(smaller.body), plain.body);
    // Kept for a caller that is no page, it must not be given to one: the browser would refuse it.
    assert.equal(plain.headers.vary, "authorization, accept-encoding, origin");
    assert.equal(smaller.headers.vary, "authorization, accept-encoding, origin");
  });

  it("gives no ETag to errors, nor to answers with POST", async () => {
    const post = await raw(subject.url, { "content-type": "application/json" }, Buffer.from(inJson.message));
    assert.deepEqual([post.headers[":status"], post.headers.etag, post.headers["cache-control"]], [200, undefined, undefined]);
    assert.equal((await get({ encoding: "json", message: '{"listingId":"x"}' })).headers.etag, undefined);
  });

  it("may be kept by everybody only where nobody in particular asked", async () => {
    const authorization = `Bearer ${await signAccountToken(subject.keys, { accountId: LISTING })}`;
    const query = { encoding: "json", message: "{}" };
    assert.equal((await get(query, {}, LIST_CATEGORIES)).headers["cache-control"], "public, max-age=3600");
    const own = await get(query, { authorization }, LIST_CATEGORIES);
    assert.equal(own.headers["cache-control"], "private, max-age=3600");
    assert.match(String(own.headers.vary), /^authorization\b/);
  });

  it("is answered alike over HTTP/1.1, to HEAD only with what is allowed", async () => {
    const url = `${subject.url}${GET_LISTING}?${new URLSearchParams(inJson)}`;
    const first = await fetch(url);
    const etag = first.headers.get("etag") ?? "";
    assert.equal(((await first.json()) as { listing: { listingId: string } }).listing.listingId, LISTING);
    assert.equal((await get(inJson)).headers.etag, etag);
    const same = await fetch(url, { headers: { "if-none-match": etag } });
    assert.deepEqual([same.status, await same.text()], [304, ""]);
    const head = await fetch(url, { method: "HEAD" });
    assert.deepEqual([head.status, head.headers.get("allow")], [405, "GET, POST"]);
  });
});
