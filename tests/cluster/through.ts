import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { type GrpcClient, openGrpcClient } from "#runtime/client/transport.ts";
import { policyOf } from "#runtime/policy.ts";
import type { Keys } from "#runtime/tokens.ts";
import { type Identity, signedIn } from "../support/server.ts";
import { GATEWAY_URL } from "./cluster.ts";

/** Typed clients of a marketplace behind the cluster's gateway, which try again as often as policy allows. */
export interface Through {
  client<S extends DescService>(contract: S, identity?: Identity): Client<S>;
  readonly attempts: GrpcClient["attempts"];
  close(): void;
}

/** Reaches a marketplace by its host at the gateway. */
export function throughGateway({ keys, host }: { readonly keys: Keys; readonly host: string }): Through {
  const grpc = openGrpcClient({ baseUrl: GATEWAY_URL, authority: host, boundsOf: policyOf });
  return {
    client: (contract, identity) => createClient(contract, grpc.transport({ interceptors: [signedIn(keys, identity)] })),
    attempts: grpc.attempts,
    close: () => grpc.close(),
  };
}
