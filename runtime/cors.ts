import { cors } from "@connectrpc/connect";
import type { AnyRequest, AnyResponse } from "#runtime/listener.ts";

/** Lets web pages of the given origins call. */
export interface Cors {
  /** The headers of every answer to a page of this origin; without one, what a shared cache has to know about the answer. */
  headers(origin: string | undefined): Readonly<Record<string, string>> | undefined;
  /** Sets those of a request. Answers whether it was a preflight and is done. */
  answers(request: AnyRequest, response: AnyResponse): boolean;
}

/** Lets pages of these origins call, such as `https://shop.example`; `localhost` admits every page of the own machine. */
export function createCors(origins: readonly string[]): Cors {
  const allowed = new Set(origins);
  const isAllowed = (origin: string) =>
    allowed.has(origin) || (allowed.has("localhost") && /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/.test(origin));
  const allowHeaders = [...cors.allowedHeaders, "Authorization"].join(", ");
  const exposeHeaders = cors.exposedHeaders.join(", ");
  const headers = (origin: string | undefined): Readonly<Record<string, string>> | undefined => {
    if (allowed.size === 0) return undefined;
    if (origin === undefined || !isAllowed(origin)) return { vary: "origin" };
    return { vary: "origin", "access-control-allow-origin": origin, "access-control-expose-headers": exposeHeaders };
  };
  return {
    headers,
    answers(request, response) {
      const { origin } = request.headers;
      const own = origin === undefined ? undefined : headers(origin);
      if (own === undefined) return false;
      for (const [name, value] of Object.entries(own)) response.setHeader(name, value);
      if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) return false;
      if ("access-control-allow-origin" in own) {
        response.setHeader("access-control-allow-methods", cors.allowedMethods.join(", "));
        response.setHeader("access-control-allow-headers", allowHeaders);
        response.setHeader("access-control-max-age", "7200");
      }
      response.statusCode = 204;
      response.end();
      return true;
    },
  };
}
