import { createLocalJWKSet, createRemoteJWKSet, customFetch, errors, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import { failure, TOKEN_INVALID, UNAVAILABLE } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import { ACCOUNT_TYPE, type AccountClaims, accountIdOf, providerVerifier, type Verifier } from "#runtime/tokens.ts";

/**
 * What providers sign access tokens with. ES256 is ours; Entra ID, Cognito, Okta and Auth0 sign with RS256 and offer no elliptic curve. A key of the
 * set fits one of the two only, so a token cannot choose how its key is used.
 */
const ALGORITHMS = ["ES256", "RS256"] as const;
/** The types of access tokens: RFC 9068's, and what providers write that are older. An identity token is for another audience. */
const TYPES: readonly (string | undefined)[] = [ACCOUNT_TYPE, "jwt", undefined];
/** How long a fetch of keys may take, discovery included, in ms. */
const FETCH_TIMEOUT_MS = 3_000;
/** After a fetch, a key that is not in the set is not looked for again for so long, in ms. */
const COOLDOWN_MS = 10_000;
/** After a failed fetch nobody waits for another one for so long, in ms. */
const FAILURE_PAUSE_MS = 1_000;
/** Keys older than this are fetched anew, beside the calls: a key that was withdrawn is refused then, one that cannot be fetched is kept. */
const REFRESH_MS = 5 * 60_000;
/** The largest document that is read of a provider, in bytes. */
const MAX_DOCUMENT_BYTES = 262_144;
/** The longest subject, in characters, as OpenID Connect bounds it. */
const MAX_SUBJECT_LENGTH = 255;

/** A provider as the settings name it. */
export interface IssuerOptions {
  /** To the letter what its tokens say in `iss`. */
  readonly issuer: string;
  readonly audience: string;
  /** Where its keys are, or the keys; its discovery document says where unless given. */
  readonly jwks?: { readonly url: string } | { readonly keys: JSONWebKeySet } | undefined;
  /** The claim with the roles. A name with a slash is one claim's, else dots lead into objects. */
  readonly rolesClaim: string;
  readonly log: Log;
}

/** An OpenID provider whose account tokens are taken. */
export interface Issuer {
  readonly accounts: Verifier<AccountClaims>;
  /**
   * Fetches the keys, so that the first call need not wait for them. A provider that is away is logged, and asked again by calls.
   *
   * @throws Error a sentence, when the provider calls itself otherwise.
   */
  ready(): Promise<void>;
}

/** The provider calls itself otherwise than the settings do: none of its tokens would ever be good. */
class OtherIssuer extends Error {}

/**
 * Takes the account tokens of an OpenID provider. Its keys are fetched when they are needed and kept: while the provider is away tokens by known keys are
 * good, and those by unknown ones fail with UNAVAILABLE rather than as forged.
 */
export function openIssuer(options: IssuerOptions): Issuer {
  const { issuer, audience, rolesClaim, jwks } = options;
  const path = rolesClaim.includes("/") ? [rolesClaim] : rolesClaim.split(".");
  const source = jwks !== undefined && "keys" in jwks ? fixedKeys(jwks.keys) : remoteKeys(options, jwks?.url);
  const accounts = providerVerifier({
    issuer,
    audience,
    algorithms: ALGORITHMS,
    key: source.key,
    read(payload, type) {
      if (!TYPES.includes(type?.toLowerCase().replace(/^application\//, ""))) {
        throw failure(TOKEN_INVALID, { message: "The token is of another type than an access token." });
      }
      return { operator: hasRole(path.reduce(memberOf, payload), "operator") };
    },
    accountId(subject) {
      if (subject === "" || subject.length > MAX_SUBJECT_LENGTH) {
        throw failure(TOKEN_INVALID, { message: "The token's subject is not an account." });
      }
      return accountIdOf(issuer, subject);
    },
  });
  return { accounts, ready: source.ready };
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

/** Roles are a list, or words in a text as `scope` has them. */
function hasRole(roles: unknown, role: string): boolean {
  if (typeof roles === "string") return roles.split(" ").includes(role);
  return Array.isArray(roles) && roles.includes(role);
}

interface KeySource {
  readonly key: JWTVerifyGetKey;
  ready(): Promise<void>;
}

function fixedKeys(keys: JSONWebKeySet): KeySource {
  return { key: createLocalJWKSet(keys), ready: async () => {} };
}

function remoteKeys({ issuer, log }: IssuerOptions, keysUrl: string | undefined): KeySource {
  let failed: { readonly time: number; readonly error: unknown } | undefined;
  let refreshTime = 0;
  const fetchKeys = async (signal: AbortSignal): Promise<Response> => {
    if (failed !== undefined && performance.now() - failed.time < FAILURE_PAUSE_MS) throw failed.error;
    try {
      const text = await document(keysUrl ?? (await discover(issuer, signal)), signal);
      refreshTime = performance.now() + REFRESH_MS;
      if (failed !== undefined) log.info({ issuer }, "the issuer's keys are within reach again");
      failed = undefined;
      return new Response(text);
    } catch (error) {
      if (failed === undefined) log.warn({ issuer, err: error }, "the issuer's keys are out of reach; tokens by known keys go on");
      failed = { time: performance.now(), error };
      throw error;
    }
  };
  // The set is never too old to be used: what is older than REFRESH_MS is fetched anew without anybody waiting.
  const set = createRemoteJWKSet(new URL(keysUrl ?? issuer), {
    timeoutDuration: FETCH_TIMEOUT_MS,
    cooldownDuration: COOLDOWN_MS,
    cacheMaxAge: Number.POSITIVE_INFINITY,
    [customFetch]: (_url, { signal }) => fetchKeys(signal),
  });
  return {
    async key(header, token) {
      if (set.jwks() !== undefined && performance.now() > refreshTime && !set.reloading) {
        refreshTime = performance.now() + FAILURE_PAUSE_MS;
        set.reload().catch(() => {});
      }
      try {
        return await set(header, token);
      } catch (error) {
        // No such key, or several: the provider was asked, so the token is at fault.
        if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys) throw error;
        throw failure(UNAVAILABLE, {
          message: "The token cannot be checked now: the keys of its issuer are out of reach. Try again.",
          retryAfterMs: FAILURE_PAUSE_MS,
          cause: error,
        });
      }
    },
    async ready() {
      await set.reload().catch((error: unknown) => {
        if (error instanceof OtherIssuer) throw error;
      });
    },
  };
}

/** Where the provider says that its keys are (OpenID Connect Discovery). */
async function discover(issuer: string, signal: AbortSignal): Promise<string> {
  const url = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const { issuer: named, jwks_uri: keysUrl } = JSON.parse(await document(url, signal)) as Record<string, unknown>;
  if (named !== issuer) {
    throw new OtherIssuer(
      `SOUK_ISSUER is ${issuer}, and the provider there calls itself ${JSON.stringify(named)?.slice(0, 200)}. Its tokens say so, too: name it exactly so.`,
    );
  }
  const keys = typeof keysUrl === "string" ? URL.parse(keysUrl) : null;
  // Keys that arrive in the clear may be anybody's, unless all of the provider is in the clear.
  if (keys === null || (keys.protocol !== "https:" && !issuer.startsWith("http://"))) {
    throw new Error(`${url} does not say where the keys are.`);
  }
  return keys.href;
}

async function document(url: string, signal: AbortSignal): Promise<string> {
  const response = await fetch(url, { signal, redirect: "error", headers: { accept: "application/json" } });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`${url} answered ${response.status}.`);
  }
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > MAX_DOCUMENT_BYTES) throw new Error(`${url} answers more than ${MAX_DOCUMENT_BYTES} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
