// @ts-nocheck: plain JavaScript, as it runs in a container that has no compiler.
// A plain gRPC client, as one would write it without Connect: @grpc/grpc-js, messages by protobuf-es. Run inside the cluster, in a container of the
// image, with what it needs in `SETTINGS`: where each service is, under which name, and who gives tokens.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";

const { address, authority, issuer } = JSON.parse(process.env.SETTINGS);
const [seller, buyer] = [newId(), newId()];

async function tokenOf(account) {
  const response = await fetch(new URL("/token", issuer), { method: "POST", body: new URLSearchParams({ account }) });
  return (await response.json()).access_token;
}

async function call(method, accountId, input) {
  const service = /^marketplace\.(\w+)\./.exec(method.parent.typeName)[1];
  const options = { "grpc.service_config": '{"loadBalancingConfig":[{"round_robin":{}}]}' };
  if (authority) options["grpc.default_authority"] = authority;
  const client = new Client(address.replace("{service}", service), credentials.createInsecure(), options);
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${await tokenOf(accountId)}`);
  try {
    return await new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        (message) => Buffer.from(toBinary(method.input, message)),
        (bytes) => fromBinary(method.output, bytes),
        create(method.input, input),
        metadata,
        { deadline: Date.now() + 20_000 },
        (error, answer) => (error ? reject(error) : resolve(answer)),
      );
    });
  } finally {
    client.close();
  }
}

const price = { currencyCode: "USD", amountMinor: 7_000n };
const { listing } = await call(CatalogService.method.createListing, seller, {
  requestId: newId(),
  publish: true,
  listing: { title: "Turquoise touring bike", categoryId: "road-bikes", condition: 3, price },
});
const home = { recipient: "Ben", lines: ["1 Way"], city: "Springfield", postalCode: "12345", countryCode: "US" };
const { address: place } = await call(AccountService.method.createAddress, buyer, { requestId: newId(), ...home });
const { order } = await call(OrderService.method.placeOrder, buyer, {
  requestId: newId(),
  addressId: place.addressId,
  paymentMethodToken: "tok_approved",
  lines: [{ listingId: listing.listingId, unitPrice: price }],
});
console.log(`bought over gRPC: ${order.state === OrderState.PAID ? "PAID" : order.state} ${listing.listingId}`);
