// A bare HTTP/2 server in a process of its own that answers every call with the same message, in gRPC or in Connect. It tells its URL over IPC.

import { createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import { GetListingResponseSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";

const message = toBinary(
  GetListingResponseSchema,
  create(GetListingResponseSchema, {
    listing: {
      listingId: "01900000-0000-7000-8000-0000000000a1",
      title: "Vintage camera with a leather case",
      price: { currencyCode: "USD", amountMinor: 12_500n },
    },
  }),
);
const framed = Buffer.concat([Buffer.alloc(5), message]);
framed.writeUInt32BE(message.length, 1);

const server = createServer();
server.on("stream", (stream: ServerHttp2Stream, headers) => {
  stream.on("error", () => {});
  stream.resume();
  stream.on("end", () => {
    if (headers["content-type"] === "application/proto") {
      stream.respond({ ":status": 200, "content-type": "application/proto" });
      stream.end(message);
      return;
    }
    stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(framed);
  });
});
server.on("session", (session) => session.on("error", () => {}));
server.listen(0, "127.0.0.1", () => {
  process.send?.(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.on("disconnect", () => process.exit());
