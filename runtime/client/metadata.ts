import { Code, ConnectError } from "@connectrpc/connect";
import type { Metadata } from "@grpc/grpc-js";

/** Whatever headers are made of. */
export type HeadersInit = ConstructorParameters<typeof Headers>[0];

/** What the transport or HTTP/2 itself decides; a caller's value would break the call, or the connection and all calls on it. */
const NOT_THE_CALLERS = new Set([
  "connection",
  "content-length",
  "content-type",
  "grpc-encoding",
  "grpc-timeout",
  "host",
  "http2-settings",
  "keep-alive",
  "proxy-connection",
  "te",
  "transfer-encoding",
  "upgrade",
  "user-agent",
]);

/** Headers as gRPC's metadata, after those that go along with each call. A name that ends with `-bin` holds base64. */
export function toMetadata(headers: HeadersInit | undefined, base: Metadata): Metadata {
  if (headers === undefined) return base;
  const metadata = base.clone();
  for (const [name, value] of headers instanceof Headers ? headers : new Headers(headers)) {
    if (!NOT_THE_CALLERS.has(name)) setHeader(metadata, name, value);
  }
  return metadata;
}

/** Sets one header, in the place of what was there. */
export function setHeader(metadata: Metadata, name: string, value: string): void {
  try {
    if (name.endsWith("-bin")) {
      metadata.remove(name);
      for (const part of value.split(",")) metadata.add(name, Buffer.from(part, "base64"));
    } else {
      metadata.set(name, value);
    }
  } catch (error) {
    throw new ConnectError(`The header ${name} cannot be sent: ${(error as Error).message}`, Code.InvalidArgument);
  }
}

/** gRPC's metadata as headers; binary values in base64. */
export function toHeaders(...all: readonly (Metadata | undefined)[]): Headers {
  const headers = new Headers();
  for (const metadata of all) {
    for (const [name, values] of Object.entries(metadata?.toJSON() ?? {})) {
      for (const value of values) {
        headers.append(name, typeof value === "string" ? value : value.toString("base64").replace(/=+$/, ""));
      }
    }
  }
  return headers;
}
