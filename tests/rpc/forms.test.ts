import assert from "node:assert/strict";
import { gunzipSync, gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { GetListingResponseSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { onServer, type Subject } from "../support/server.ts";
import { connectReason, envelope, envelopes, grpcReason, raw, request, staged, webTrailers } from "./stage.ts";

/** A protocol as it is on the wire, told apart from what the server believes of it. */
interface Form {
  readonly type: string;
  readonly accept: string;
  readonly encoding: string;
  ask(message: Uint8Array, compressed?: boolean): Buffer;
  /** Message and outcome of an answer. */
  read(answer: Awaited<ReturnType<typeof raw>>): {
    message?: Buffer;
    compressed: boolean;
    status: string;
    reason?: string | undefined;
  };
  trailer(answer: Awaited<ReturnType<typeof raw>>, name: string): unknown;
}

const grpc = (web: boolean): Form => ({
  type: web ? "application/grpc-web+proto" : "application/grpc",
  accept: "grpc-accept-encoding",
  encoding: "grpc-encoding",
  ask: (message, compressed) => envelope(message, compressed ? 1 : 0),
  read(answer) {
    const first = envelopes(answer.body).find(({ flags }) => flags < 2);
    const status = web ? webTrailers(answer.body) : (answer.trailers ?? answer.headers);
    return {
      ...(first && { message: first.data }),
      compressed: first?.flags === 1,
      status: String(status["grpc-status"]),
      reason: grpcReason(status["grpc-status-details-bin"]),
    };
  },
  trailer: (answer, name) => (web ? webTrailers(answer.body) : answer.trailers)?.[name],
});

const FORMS: Record<string, Form> = {
  gRPC: grpc(false),
  "gRPC-Web": grpc(true),
  Connect: {
    type: "application/proto",
    accept: "accept-encoding",
    encoding: "content-encoding",
    ask: (message) => Buffer.from(message),
    read({ headers, body }) {
      const status = Number(headers[":status"]);
      return status === 200
        ? { message: body, compressed: headers["content-encoding"] === "gzip", status: "0" }
        : { compressed: false, status: String(status), reason: connectReason(body) };
    },
    trailer: ({ headers }, name) => headers[`trailer-${name}`],
  },
};

for (const [name, form] of Object.entries(FORMS)) {
  describe(`a unary call in ${name}`, () => {
    const { stage, modules } = staged();
    let subject: Subject;
    before(async () => {
      subject = await onServer(modules);
    });
    after(() => subject.stop());
    beforeEach(() => {
      Object.assign(stage, { handled: 0, title: "", handler() {} });
    });
    const call = (body: Buffer, headers: Record<string, string> = {}) =>
      raw(subject.url, { "content-type": form.type, ...headers }, body);
    const titleOf = (bytes: Buffer | undefined) => fromBinary(GetListingResponseSchema, bytes ?? Buffer.alloc(0)).listing?.title;

    it("takes compressed requests, and none that is larger than its policy allows once it is decompressed", async () => {
      const sent = form.ask(gzipSync(request()), true);
      assert.equal(form.read(await call(sent, { [form.encoding]: "gzip" })).status, "0");
      // It is cut off: whoever decompressed it to its end would find that it has none.
      const bomb = form.ask(gzipSync(Buffer.alloc(30_000_000)).subarray(0, -100), true);
      const answer = form.read(await call(bomb, { [form.encoding]: "gzip" }));
      assert.deepEqual([answer.reason, stage.handled], ["REQUEST_TOO_LARGE", 1]);
    });

    it("refuses what does not decompress, and compressions it does not know, naming the one it does", async () => {
      const broken = form.ask(Buffer.from("not gzip"), true);
      assert.equal(form.read(await call(broken, { [form.encoding]: "gzip" })).reason, "MALFORMED_REQUEST");
      const unknown = await call(form.ask(request(), true), { [form.encoding]: "br" });
      assert.equal(form.read(unknown).reason, "PROTOCOL_UNSUPPORTED");
      assert.equal(unknown.headers[form.accept], "gzip");
      assert.equal(stage.handled, 0);
    });

    it("compresses large answers for those who accept it, and nothing else", async () => {
      stage.title = "x".repeat(5000);
      const accepting = { [form.accept]: "br, gzip" };
      const large = form.read(await call(form.ask(request()), accepting));
      assert.deepEqual([large.compressed, titleOf(large.message && gunzipSync(large.message))], [true, stage.title]);
      const plain = form.read(await call(form.ask(request()), { [form.accept]: "br, gzip;q=0" }));
      assert.deepEqual([plain.compressed, titleOf(plain.message)], [false, stage.title]);
      stage.title = "short";
      const small = form.read(await call(form.ask(request()), accepting));
      assert.deepEqual([small.compressed, titleOf(small.message)], [false, "short"]);
    });

    it("carries the headers and trailers that its handler sets", async () => {
      stage.handler = ({ responseHeader, responseTrailer }) => {
        responseHeader.set("x-shelf", "7");
        responseTrailer.set("x-count", "9");
      };
      const answer = await call(form.ask(request()));
      assert.deepEqual([form.read(answer).status, answer.headers["x-shelf"], form.trailer(answer, "x-count")], ["0", "7", "9"]);
    });

    it("shows its handler the headers of the request, but not those that say who calls", async () => {
      let seen: [string | null, string | null] | undefined;
      stage.handler = ({ requestHeader }) => {
        seen = [requestHeader.get("x-shelf"), requestHeader.get("x-souk-account")];
      };
      await call(form.ask(request()), { "x-shelf": "7", "x-souk-account": "me" });
      assert.deepEqual(seen, ["7", null]);
    });

    it("answers an error with its reason in the protocol's own form", async () => {
      const answer = form.read(await call(form.ask(request("x"))));
      assert.deepEqual(
        [answer.status, answer.reason, answer.message],
        [name === "Connect" ? "400" : "3", "INVALID_REQUEST", undefined],
      );
    });

    it("takes a body in pieces, and refuses one that stops in the middle of its message or goes on behind it", async () => {
      const large = form.ask(request());
      assert.equal(form.read(await call(Buffer.concat([large]))).status, "0");
      assert.equal(form.read(await call(large.subarray(0, -3))).reason, "MALFORMED_REQUEST");
      const two = form.read(await call(Buffer.concat([large, form.ask(request())])));
      // Protobuf itself joins two messages into one, of which the last id counts.
      assert.equal(two.reason, name === "Connect" ? undefined : "PROTOCOL_UNSUPPORTED");
    });
  });
}
