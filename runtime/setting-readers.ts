// What the settings of programs are read with: each takes what was written and gives the value, or throws what is allowed, as the end of a sentence.

import { isIP, isIPv4, isIPv6 } from "node:net";
import { resolve } from "node:path";
import type { JSONWebKeySet } from "jose";

/** One of these words. */
export function oneOf<const T extends readonly string[]>(allowed: T): (text: string) => T[number] {
  return (text) => {
    if (allowed.includes(text)) return text as T[number];
    throw new Error(`it must be one of ${allowed.join(", ")}`);
  };
}

/** A whole number between two bounds, which are allowed. */
export function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new Error(`it must be a whole number from ${least} to ${most}`);
  };
}

/** `true` or `false`. */
export function yesOrNo(text: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw new Error("it must be true or false");
}

/** An address to listen on. */
export function address(text: string): string {
  if (isIP(text) !== 0 || text === "localhost") return text;
  throw new Error("it must be an IP address of this machine, or localhost");
}

/** A folder, as an absolute path. */
export function folder(text: string): string {
  if (text === "" || text.includes("\0")) throw new Error("it must be the path of a folder");
  return resolve(text);
}

/** A file, as an absolute path. */
export function file(text: string): string {
  if (text.endsWith("/") || text.includes("\0")) throw new Error("it must be the path of a file");
  return resolve(text);
}

/** The origin of a web address. */
export function webOrigin(text: string): string {
  const url = URL.parse(text);
  if (
    url !== null &&
    /^https?:$/.test(url.protocol) &&
    url.pathname === "/" &&
    url.search === "" &&
    url.hash === "" &&
    url.username === ""
  ) {
    return url.origin;
  }
  throw new Error("it must be the origin of a web address, such as https://shop.example");
}

/** Where another service is: an http or https URL with any path, without its last slash. */
export function serviceUrl(text: string): string {
  if (isPlainUrl(text)) return text.replace(/\/+$/, "");
  throw new Error("it must be the address of a service, such as https://processor.example/v1");
}

/** Who signs tokens, as they name it: to the letter, a slash at the end included. */
export function issuerUrl(text: string): string {
  if (isPlainUrl(text)) return text;
  throw new Error("it must be the address of an OpenID provider, such as https://id.example");
}

function isPlainUrl(text: string): boolean {
  const url = URL.parse(text);
  const plain = url !== null && url.search === "" && url.hash === "" && url.username === "" && url.password === "";
  return plain && /^https?:\/\/\S+$/.test(text) && text.length <= 1_000;
}

/** Where keys are, or the keys themselves as a JSON Web Key Set. */
export function keySet(text: string): { readonly url: string } | { readonly keys: JSONWebKeySet } {
  if (!text.startsWith("{")) {
    if (isPlainUrl(text)) return { url: text };
  } else {
    try {
      const set = JSON.parse(text) as Partial<JSONWebKeySet>;
      const isKey = (key: unknown) => typeof key === "object" && key !== null && "kty" in key;
      if (Array.isArray(set.keys) && set.keys.length > 0 && set.keys.every(isKey)) return { keys: set as JSONWebKeySet };
    } catch {
      // No JSON.
    }
  }
  throw new Error('it must be the address of keys, such as https://id.example/keys, or keys like {"keys":[{"kty":"EC",…}]}');
}

/** What stands in a header. */
export function secretText(text: string): string {
  if (/^[\x21-\x7e]{8,1000}$/.test(text)) return text;
  throw new Error("it must be 8 to 1000 characters without spaces");
}

/** The beginning of keys. */
export function keyPrefix(text: string): string {
  if (/^[A-Za-z0-9._/-]{0,100}$/.test(text)) return text;
  throw new Error("it must be at most 100 letters, digits and . _ / -");
}

/** Where the databases are: one for each service. */
export function databaseUrl(text: string): string {
  const url = URL.parse(text.replaceAll("{service}", "service"));
  if (url === null || !/^(mariadb|mysql):$/.test(url.protocol) || url.hostname === "" || url.pathname.length < 2)
    throw new Error("it must be like mariadb://souk_{service}:password@host:3306/souk_{service}, or mysql://…");
  if (!text.slice(text.lastIndexOf("/")).includes("{service}"))
    throw new Error("each service has a database of its own: {service} must stand in the database's name");
  return text;
}

/** The address of an OpenTelemetry collector. */
export function collectorUrl(text: string): string {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/.test(url.protocol) && url.search === "" && url.hash === "" && url.username === "") {
    return url.href.replace(/\/+$/, "");
  }
  throw new Error("it must be the address of a collector, such as http://otel-collector:4318, without the path of a signal");
}

/** `name=value` pairs as the OTEL_ variables write them: separated by commas, with percent escapes. */
export function pairs(text: string): Readonly<Record<string, string>> {
  const parts = text.split(",").map((part) => part.trim());
  return Object.fromEntries(
    parts
      .filter((part) => part !== "")
      .map((part) => {
        const [, name, value] = /^([\w.\-/]+)\s*=\s*(.*)$/.exec(part) ?? [];
        try {
          if (name !== undefined) return [name, decodeURIComponent(value as string)];
        } catch {
          // A percent sign that escapes nothing.
        }
        throw new Error("it must be like name=value,name=value, with %2C for a comma in a value");
      }),
  );
}

/** A number from 0 to 1. */
export function share(text: string): number {
  const value = /^(0|1|[01]?\.\d{1,9})$/.test(text) ? Number(text) : Number.NaN;
  if (value >= 0 && value <= 1) return value;
  throw new Error("it must be a number from 0 to 1");
}

/** A name for people. */
export function shortText(text: string): string {
  if (/^[\w.:\-/ ]{1,100}$/.test(text)) return text;
  throw new Error("it must be letters, digits, dots and hyphens, at most 100");
}

/** An identity of a mesh. */
export function spiffeUri(text: string): string {
  if (/^spiffe:\/\/[\w.-]+(\/[\w.-]+)+$/.test(text)) return text;
  throw new Error("it must be like spiffe://cluster.local/ns/istio-ingress/sa/istio-ingressgateway");
}

/** The identities of all services in a mesh, with `{service}` where the name stands. */
export function servicesUri(text: string): string {
  if (text.split("{service}").length !== 2)
    throw new Error("it must be like spiffe://cluster.local/ns/shop/sa/souk-{service}, with {service} where the name stands");
  spiffeUri(text.replace("{service}", "service"));
  return text;
}

/** Where Redis is. */
export function redisUrl(text: string): string {
  if (/^rediss?(\+sentinel|\+cluster)?:\/\/[^/]/.test(text)) return text;
  throw new Error("it must be like redis://:password@host:6379");
}

/** Where each service is reached, from a pattern for all or a list; several places of one are separated by spaces. */
export function peersUrl(text: string): (service: string) => string | undefined {
  const refuse = (): never => {
    throw new Error(
      "it must be like http://souk-{service}:8080, or a list like order=http://10.0.0.1:8080,payment=http://10.0.0.2:8080",
    );
  };
  const places = (urls: string[]): string => {
    const hosts = urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, ""));
    if (urls.length > 1 && !hosts.every(isIPv4) && !hosts.every(isIPv6)) {
      throw new Error(
        "several places of one service are separated by spaces and named by IP addresses; otherwise give one name with several addresses",
      );
    }
    return urls.join(" ");
  };
  const origin = (url: string): string => {
    try {
      return webOrigin(url);
    } catch {
      return refuse();
    }
  };
  if (!text.includes("=")) {
    if (!text.includes("{service}")) refuse();
    origin(text.replaceAll("{service}", "service"));
    return (service) => webOrigin(text.replaceAll("{service}", service));
  }
  const named = new Map(
    text.split(",").map((part) => {
      const [, name, url] = /^\s*([a-z]+)=(.+?)\s*$/.exec(part) ?? refuse();
      return [name as string, places((url as string).split(/\s+/).map(origin))];
    }),
  );
  return (service) => named.get(service);
}

/** Undefined where nothing is written. */
export function optional<T>(read: (text: string) => T): (text: string) => T | undefined {
  return (text) => (text === "" ? undefined : read(text));
}

/** What is separated by commas. */
export function listOf<T>(read: (text: string) => T): (text: string) => readonly T[] {
  return (text) =>
    text
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "")
      .map(read);
}
