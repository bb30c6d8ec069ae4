/** The header in which a proxy says whose certificates it saw, one element for each hop, its own last. */
export const CLIENT_CERT_HEADER = "x-forwarded-client-cert";

/** Who a caller is to the mesh: one of our services, the gateway, or somebody else whom the mesh knows. */
export type MeshCaller = { readonly service: string } | "gateway" | "stranger";

/** Tells who sent a request, from what the proxy in front of this process wrote; undefined where it wrote nothing. */
export type MeshIdentity = (clientCert: string | undefined) => MeshCaller | undefined;

/** What certificates name in this installation. */
export interface MeshNames {
  /** The URI of our services, with `{service}` for the name: `spiffe://cluster.local/ns/shop/sa/souk-{service}`. */
  readonly services: string;
  /** The URI of the gateway. Without one anybody in the mesh may bring accounts' tokens. */
  readonly gateway?: string | undefined;
}

/**
 * Identities for a process behind a proxy that ends mutual TLS. Only the last element counts: that one the proxy wrote itself, all before it came with the
 * request. Whoever reaches the port past the proxy could write it, too, so this is for processes that nobody reaches so.
 */
export function meshIdentity({ services, gateway }: MeshNames): MeshIdentity {
  const [before = "", after = ""] = services.split("{service}");
  const serviceOf = (uri: string): string | undefined => {
    if (!uri.startsWith(before) || !uri.endsWith(after)) return undefined;
    const name = uri.slice(before.length, uri.length - after.length);
    return /^[a-z]{2,16}$/.test(name) ? name : undefined;
  };
  return (clientCert) => {
    if (clientCert === undefined) return undefined;
    const uri = lastUri(clientCert);
    if (uri === undefined) return "stranger";
    const service = serviceOf(uri);
    if (service !== undefined) return { service };
    return gateway === undefined || uri === gateway ? "gateway" : "stranger";
  };
}

/** `key=value`, the value quoted where it holds what separates; then the end of the pair, of the element, or of all. */
const PAIR = /[ \t]*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))(;|,|$)/y;

/**
 * The URI of the last element. The header is read from its beginning and by its grammar: an element that came with the request and leaves a quote open
 * would otherwise swallow the proxy's own. Undefined where it breaks the grammar, or where the last element has no URI or several.
 */
export function lastUri(clientCert: string): string | undefined {
  let uris: string[] = [];
  PAIR.lastIndex = 0;
  for (;;) {
    const found = PAIR.exec(clientCert);
    if (found === null) return undefined;
    const [, key = "", quoted, bare, separator] = found;
    if (key.toLowerCase() === "uri") uris.push(bare ?? (quoted as string).replaceAll(/\\(.)/g, "$1"));
    if (separator === "") return uris.length === 1 && uris[0] !== "" ? uris[0] : undefined;
    if (separator === ",") uris = [];
  }
}
