import { request as http, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { request as https } from "node:https";
import { type Keys, signAccountToken } from "#runtime/tokens.ts";
import { GATEWAY_HTTPS_URL, GATEWAY_URL } from "./cluster.ts";

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

/** Calls a method through the gateway as a web page would: Connect with JSON over HTTP/1.1; over HTTPS where it is said which authority is trusted. */
export function askGateway(
  { host, authority }: { readonly host: string; readonly authority?: string },
  path: string,
  {
    method = "POST",
    headers = {},
    body = "{}",
  }: { readonly method?: string; readonly headers?: Readonly<Record<string, string>>; readonly body?: string } = {},
): Promise<GatewayAnswer> {
  const type = method === "POST" ? { "content-type": "application/json" } : {};
  return new Promise((resolve, reject) => {
    const options = { method, headers: { host, ...type, ...headers } };
    const take = (response: IncomingMessage) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
      });
      response.on("end", () => {
        const told = response.headers["x-lab-seen"];
        const seen = told === undefined ? undefined : JSON.parse(Buffer.from(String(told), "base64").toString());
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, seen });
      });
    };
    const sent =
      authority === undefined
        ? http(new URL(path, GATEWAY_URL), options, take)
        : https(new URL(path, GATEWAY_HTTPS_URL), { ...options, ca: authority, servername: host }, take);
    sent.on("error", reject).end(method === "POST" ? body : undefined);
  });
}

/** Signs in. */
export async function bearer(keys: Keys, { operator = false, account = ADA } = {}): Promise<Record<string, string>> {
  return { authorization: `Bearer ${await signAccountToken(keys, { accountId: account, operator })}` };
}
