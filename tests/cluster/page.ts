import { request as http1 } from "node:http";
import { Readable } from "node:stream";
import { GATEWAY_URL } from "./cluster.ts";

/** What a web page has in place of `fetch`: to the gateway, under a host that no name server knows. */
export function pageFetch(host: string): typeof globalThis.fetch {
  return async (input, init) => {
    const asked = new Request(input, init);
    const { pathname, search } = new URL(asked.url);
    const body = asked.body === null ? undefined : Buffer.from(await asked.arrayBuffer());
    return new Promise((resolve, reject) => {
      const headers = { ...Object.fromEntries(asked.headers), host };
      const url = new URL(`${pathname}${search}`, GATEWAY_URL);
      const request = http1(url, { method: asked.method, headers, signal: asked.signal }, (answer) => {
        const received = Object.entries(answer.headers).flatMap(([name, value]): [string, string][] =>
          value === undefined ? [] : [[name, [value].flat().join(", ")]],
        );
        resolve(new Response(Readable.toWeb(answer) as ReadableStream, { status: answer.statusCode ?? 0, headers: received }));
      });
      request.on("error", reject).end(body);
    });
  };
}
