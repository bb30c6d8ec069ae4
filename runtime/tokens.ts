import { createHash, createPublicKey, hash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chmod, link, mkdir, open, readFile, unlink } from "node:fs/promises";
import { join } from "node:path";
import { ConnectError } from "@connectrpc/connect";
import {
  type CryptoKey,
  errors,
  exportPKCS8,
  generateKeyPair,
  importPKCS8,
  importSPKI,
  type JWTVerifyGetKey,
  jwtVerify,
  SignJWT,
} from "jose";
import { failure, TOKEN_EXPIRED, TOKEN_INVALID } from "#runtime/errors.ts";

/** The signature algorithm of our own tokens, and the only one accepted of them: ECDSA on P-256 with SHA-256. */
export const ALGORITHM = "ES256";
/** The issuer of the built-in tokens. */
export const ISSUER = "souk";
/** The audience of account tokens. */
export const ACCOUNT_AUDIENCE = "souk";
/** The audience of service tokens: an account token is never taken for one, nor the other way round. */
export const SERVICE_AUDIENCE = "souk-services";
/** The `typ` of account tokens (RFC 9068). */
export const ACCOUNT_TYPE = "at+jwt";
/** The `typ` of service tokens. */
const SERVICE_TYPE = "souk-service+jwt";
/** How long a service token lives. A new one is made at half of it. */
const SERVICE_TOKEN_MS = 10 * 60_000;
/** The longest token that is looked at, in characters. */
const MAX_TOKEN_LENGTH = 4096;
/** How many verified tokens are remembered. */
const MAX_REMEMBERED = 20_000;
/** How much two clocks may differ. */
const CLOCK_TOLERANCE_S = 5;

/** The shape of an account's id: a UUID in lower case. */
export const ACCOUNT_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const SERVICE_NAME = /^[a-z]{2,16}$/;

/** A key pair for signing. */
export interface KeyPair {
  readonly privateKey: CryptoKey;
  readonly publicKey: CryptoKey;
}

/** The secrets that the processes of an installation share. */
export interface ServiceKeys {
  /** Signs service tokens. */
  readonly services: KeyPair;
  /** Authenticates page tokens; 32 bytes. */
  readonly pageTokens: Uint8Array;
}

/** The secrets of an installation that needs no OpenID provider. */
export interface Keys extends ServiceKeys {
  /** Signs account tokens, in place of an OpenID provider. */
  readonly accounts: KeyPair;
}

const ALL_KEYS: { readonly services: boolean } = { services: true };

/**
 * Reads the keys in a folder and makes those that are missing. The files are readable by their owner only, unless the folder may not be written: then
 * whoever mounted it has seen to that.
 *
 * @param needed without `services` the key that signs service tokens may be missing, and is then one that nobody else knows
 * @throws Error a sentence, when a key is missing and cannot be made.
 */
export function loadOrCreateKeys(dir: string, needed = ALL_KEYS): Promise<Keys> {
  return within(dir, async () => ({ ...(await accountKeyIn(dir)), ...(await serviceKeysIn(dir, needed)) }));
}

/** The same without the key of account tokens, for where an OpenID provider signs them. */
export function loadOrCreateServiceKeys(dir: string, needed = ALL_KEYS): Promise<ServiceKeys> {
  return within(dir, () => serviceKeysIn(dir, needed));
}

/** The key of account tokens alone, for who signs them and does nothing else. */
export function loadOrCreateAccountKey(dir: string): Promise<Pick<Keys, "accounts">> {
  return within(dir, () => accountKeyIn(dir));
}

async function within<T>(dir: string, read: () => Promise<T>): Promise<T> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    return await read();
  } catch (cause) {
    if (!isForbidden(cause)) throw cause;
    throw new Error(`There are no keys in ${dir}, and none can be made there: ${(cause as Error).message}.`, { cause });
  }
}

function isForbidden(error: unknown): boolean {
  return ["EACCES", "EPERM", "EROFS"].includes((error as NodeJS.ErrnoException).code ?? "");
}

async function accountKeyIn(dir: string): Promise<Pick<Keys, "accounts">> {
  return { accounts: await loadOrCreatePair(join(dir, "accounts.pem")) };
}

async function serviceKeysIn(dir: string, needed: typeof ALL_KEYS): Promise<ServiceKeys> {
  const services = join(dir, "services.pem");
  const mayMiss = !needed.services && !existsSync(services);
  return {
    services: mayMiss ? (await temporaryKeys()).services : await loadOrCreatePair(services),
    pageTokens: Buffer.from(
      await loadOrCreate(join(dir, "page-tokens.key"), async () => randomBytes(32).toString("base64url")),
      "base64url",
    ),
  };
}

/** New keys that live in memory only. */
export async function temporaryKeys(): Promise<Keys> {
  const pair = () => generateKeyPair(ALGORITHM, { extractable: true });
  return { accounts: await pair(), services: await pair(), pageTokens: randomBytes(32) };
}

async function loadOrCreatePair(path: string): Promise<KeyPair> {
  const pem = await loadOrCreate(path, async () =>
    exportPKCS8((await generateKeyPair(ALGORITHM, { extractable: true })).privateKey),
  );
  try {
    const publicPem = createPublicKey(pem).export({ type: "spki", format: "pem" }).toString();
    return { privateKey: await importPKCS8(pem, ALGORITHM), publicKey: await importSPKI(publicPem, ALGORITHM) };
  } catch (cause) {
    throw new Error(`The key in ${path} cannot be read. Restore it, or delete it and have a new one made.`, { cause });
  }
}

/** Of several processes that start at once one makes the secret and all use it: the file appears whole, by `link`, or not at all. */
async function loadOrCreate(path: string, make: () => Promise<string>): Promise<string> {
  for (;;) {
    try {
      await chmod(path, 0o600).catch((error: unknown) => {
        if (!isForbidden(error)) throw error;
      });
      return (await readFile(path, "utf8")).trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
        throw error;
      }
    }
    const draft = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
    const file = await open(draft, "wx", 0o600);
    await file.writeFile(await make());
    await file.sync();
    await file.close();
    await link(draft, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") {
        throw error;
      }
    });
    await unlink(draft);
  }
}

/** What an account's token says. */
export interface AccountClaims {
  readonly accountId: string;
  readonly operator: boolean;
}

/** What an account's token is to say. */
export interface AccountTokenFields {
  readonly accountId: string;
  readonly operator?: boolean;
  /** How long it lives; an hour unless given. May be negative in tests. */
  readonly ttlMs?: number;
  /** Who says so and to whom; `souk` both unless given. */
  readonly issuer?: string;
  readonly audience?: string;
  /** Names the key, where its public half is one of several. */
  readonly keyId?: string;
}

/** Signs a token for an account. */
export async function signAccountToken(keys: Pick<Keys, "accounts">, claims: AccountTokenFields): Promise<string> {
  const expiry = Math.floor((Date.now() + (claims.ttlMs ?? 3_600_000)) / 1000);
  const header = { alg: ALGORITHM, typ: ACCOUNT_TYPE, ...(claims.keyId !== undefined && { kid: claims.keyId }) };
  return new SignJWT(claims.operator ? { roles: ["operator"] } : {})
    .setProtectedHeader(header)
    .setIssuer(claims.issuer ?? ISSUER)
    .setAudience(claims.audience ?? ACCOUNT_AUDIENCE)
    .setSubject(claims.accountId)
    .setIssuedAt()
    .setExpirationTime(expiry)
    .sign(keys.accounts.privateKey);
}

/** Gives a service's current token; asked before each call. */
export type ServiceTokenSource = () => Promise<string>;

/** Signs a service's tokens, each used until half of its life is over. */
export function serviceTokens(keys: Pick<Keys, "services">, service: string): ServiceTokenSource {
  let token: Promise<string> | undefined;
  let renewTime = 0;
  return () => {
    const now = Date.now();
    if (token === undefined || now >= renewTime) {
      renewTime = now + SERVICE_TOKEN_MS / 2;
      token = new SignJWT({})
        .setProtectedHeader({ alg: ALGORITHM, typ: SERVICE_TYPE })
        .setIssuer(ISSUER)
        .setAudience(SERVICE_AUDIENCE)
        .setSubject(service)
        .setIssuedAt()
        .setExpirationTime(Math.floor((now + SERVICE_TOKEN_MS) / 1000))
        .sign(keys.services.privateKey);
    }
    return token;
  };
}

/** Checks a token: fails with TOKEN_EXPIRED or TOKEN_INVALID. Synchronous when the token is remembered. */
export type Verifier<Claims> = (token: string) => Claims | Promise<Claims>;

/** Where a verifier's trust comes from. A key set of an OpenID provider fits as `key` as well as one public key. */
export interface Trust {
  readonly issuer: string;
  readonly audience: string;
  readonly key: CryptoKey | JWTVerifyGetKey;
}

/** The trust in somebody else's account tokens. */
export interface ProviderTrust extends Trust {
  readonly algorithms: readonly string[];
  /** Reads a verified token's type and roles, or fails with TOKEN_INVALID. */
  read(payload: Readonly<Record<string, unknown>>, type: string | undefined): { readonly operator: boolean };
  /** The account that a subject is. */
  accountId(subject: string): string;
}

/** A verifier of our own account tokens. */
export function accountVerifier(trust: Trust): Verifier<AccountClaims> {
  return verifier({ ...trust, algorithms: [ALGORITHM], typ: ACCOUNT_TYPE }, (subject, payload) => {
    if (!ACCOUNT_ID.test(subject)) {
      throw failure(TOKEN_INVALID, { message: "The token's subject is not an account." });
    }
    const roles = payload.roles;
    return { accountId: subject, operator: Array.isArray(roles) && roles.includes("operator") };
  });
}

/** A verifier of the account tokens that somebody else signs. */
export function providerVerifier(trust: ProviderTrust): Verifier<AccountClaims> {
  return verifier({ ...trust, typ: undefined }, (subject, payload, type) => {
    const { operator } = trust.read(payload, type);
    return { accountId: trust.accountId(subject), operator };
  });
}

/** The id of the account that a subject of an issuer is: the subject where it is such an id, else made of both, the same on every machine (UUIDv5). */
export function accountIdOf(issuer: string, subject: string): string {
  return ACCOUNT_ID.test(subject) ? subject : nameId(nameId(URL_NAMESPACE, issuer), subject);
}

/** RFC 9562's namespace of URLs. */
const URL_NAMESPACE = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";

/** A name-based UUID (version 5 of RFC 9562). */
function nameId(namespace: string, name: string): string {
  const bytes = createHash("sha1")
    .update(Buffer.from(namespace.replaceAll("-", ""), "hex"))
    .update(name, "utf8")
    .digest();
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x50;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  const hex = bytes.toString("hex", 0, 16);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** A verifier of service tokens; answers the service's name. */
export function serviceVerifier(trust: Trust): Verifier<string> {
  return verifier({ ...trust, algorithms: [ALGORITHM], typ: SERVICE_TYPE }, (subject) => {
    if (!SERVICE_NAME.test(subject)) {
      throw failure(TOKEN_INVALID, { message: "The token's subject is not a service." });
    }
    return subject;
  });
}

/** Both verifiers for the embedded keys. */
export function embeddedVerifiers(keys: Keys): { accounts: Verifier<AccountClaims>; services: Verifier<string> } {
  return {
    accounts: accountVerifier({ issuer: ISSUER, audience: ACCOUNT_AUDIENCE, key: keys.accounts.publicKey }),
    services: serviceTokenVerifier(keys),
  };
}

/** The verifier of the service tokens that an installation's own keys sign. */
export function serviceTokenVerifier(keys: Pick<ServiceKeys, "services">): Verifier<string> {
  return serviceVerifier({ issuer: ISSUER, audience: SERVICE_AUDIENCE, key: keys.services.publicKey });
}

/** What a token must be, beside well signed. */
interface Demands extends Trust {
  readonly algorithms: readonly string[];
  /** Undefined leaves the type to the reader. */
  readonly typ: string | undefined;
}

function verifier<Claims>(
  demands: Demands,
  read: (subject: string, payload: Payload, type: string | undefined) => Claims,
): Verifier<Claims> {
  // A signature costs 110 µs to verify, this memory 2. The least recently used goes first; a Map keeps the order of insertion.
  const remembered = new Map<string, { claims: Claims; expireTime: number }>();
  return (token) => {
    if (token.length > MAX_TOKEN_LENGTH) {
      throw failure(TOKEN_INVALID);
    }
    const digest = hash("sha256", token, "base64");
    const known = remembered.get(digest);
    if (known !== undefined) {
      remembered.delete(digest);
      if (known.expireTime <= Date.now()) {
        throw failure(TOKEN_EXPIRED);
      }
      remembered.set(digest, known);
      return known.claims;
    }
    return verify(demands, token).then(({ payload, type }) => {
      const claims = read(payload.sub, payload, type);
      remembered.set(digest, { claims, expireTime: payload.exp * 1000 });
      if (remembered.size > MAX_REMEMBERED) {
        remembered.delete(remembered.keys().next().value as string);
      }
      return claims;
    });
  };
}

async function verify(demands: Demands, token: string): Promise<{ payload: Payload; type: string | undefined }> {
  const { key, issuer, audience, typ } = demands;
  const options = {
    algorithms: [...demands.algorithms],
    issuer,
    audience,
    ...(typ !== undefined && { typ }),
    requiredClaims: ["sub", "exp", "iat"],
    clockTolerance: CLOCK_TOLERANCE_S,
  };
  try {
    const { payload, protectedHeader } =
      typeof key === "function" ? await jwtVerify(token, key, options) : await jwtVerify(token, key, options);
    return { payload: payload as Payload, type: protectedHeader.typ };
  } catch (cause) {
    // Whoever gives the keys says so itself when it cannot.
    if (cause instanceof ConnectError) throw cause;
    throw failure(cause instanceof errors.JWTExpired ? TOKEN_EXPIRED : TOKEN_INVALID, { cause });
  }
}

/** What `verify` has made sure of, and all else, of which it has not. */
interface Payload extends Readonly<Record<string, unknown>> {
  readonly sub: string;
  readonly exp: number;
}
