import { type IncomingHttpHeaders, request } from "node:http";
import { type Keys, signAccountToken } from "#runtime/tokens.ts";
import { GATEWAY_URL } from "./cluster.ts";

/** An account that calls through the gateway unless a test says another. */
export const ADA = "01900000-0000-7000-8000-0000000000a1";

/** An answer of the gateway. */
export interface GatewayAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** Which headers reached the workload, where it tells. */
  readonly seen: IncomingHttpHeaders | undefined;
}

/** Calls a method through the gateway as a web page would: Connect with JSON over HTTP/1.1. */
export function askGateway(
  { host }: { readonly host: string },
  path: string,
  {
    method = "POST",
    headers = {},
    body = "{}",
  }: { readonly method?: string; readonly headers?: Readonly<Record<string, string>>; readonly body?: string } = {},
): Promise<GatewayAnswer> {
  const type = method === "POST" ? { "content-type": "application/json" } : {};
  return new Promise((resolve, reject) => {
    const sent = request(new URL(path, GATEWAY_URL), { method, headers: { host, ...type, ...headers } }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => {
        const told = response.headers["x-lab-seen"];
        const seen = told === undefined ? undefined : JSON.parse(Buffer.from(String(told), "base64").toString());
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, seen });
      });
    });
    sent.on("error", reject).end(method === "POST" ? body : undefined);
  });
}

/** Signs in. */
export async function bearer(keys: Keys, { operator = false, account = ADA } = {}): Promise<Record<string, string>> {
  return { authorization: `Bearer ${await signAccountToken(keys, { accountId: account, operator })}` };
}
