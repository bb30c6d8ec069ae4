import type { ConnectError } from "@connectrpc/connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";

const MESSAGE = "grpc-message";

/** An error as the headers in which gRPC says it: status, message, details. */
export function grpcStatus(error: ConnectError): Headers {
  return spelled(setTrailerStatus(new Headers(), error));
}

/**
 * Spells the message of a status as gRPC says: only what a header cannot hold is escaped. The library escapes what a URL cannot hold, too, which
 * grpc-js and others show their callers as it is: "order_id%3A must be …". Changes the headers it is given.
 */
export function spelled(headers: Headers): Headers {
  const text = headers.get(MESSAGE);
  if (text === null || !text.includes("%")) return headers;
  const plain = decodeURIComponent(text).toWellFormed();
  // A header's own spaces at its ends are lost.
  headers.set(MESSAGE, plain.replaceAll(/[^ -$&-~]+/g, encodeURIComponent).replaceAll(/^ | $/g, "%20"));
  return headers;
}
