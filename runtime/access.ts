import type { Caller } from "#runtime/call.ts";
import { fail, PERMISSION_DENIED, TOKEN_INVALID, TOKEN_MISSING } from "#runtime/errors.ts";
import { CLIENT_CERT_HEADER, type MeshIdentity } from "#runtime/mesh-identity.ts";
import type { MethodPolicy } from "#runtime/policy.ts";
import { ACCOUNT_ID, type AccountClaims, type Verifier } from "#runtime/tokens.ts";

/** The header in which a service names the account it acts for. Believed from services only. */
export const ACCOUNT_HEADER = "x-souk-account";
/** The header that carries a service's token; an account's stands in `authorization`. */
export const SERVICE_TOKEN_HEADER = "x-souk-service-token";

/** What callers are known by. */
export interface Verifiers {
  readonly accounts: Verifier<AccountClaims>;
  readonly services: Verifier<string>;
  /** Where a mesh knows who calls, services are known by it and their tokens are not looked at. */
  readonly mesh?: MeshIdentity | undefined;
}

/** A request whose headers can be read, by their names in lower case. */
export interface HeaderReader {
  header(name: string): string | undefined;
}

const ANONYMOUS: Caller = { kind: "anonymous" };

/**
 * Who is calling. A service's identity wins over an account's token. Fails with TOKEN_EXPIRED or TOKEN_INVALID on a token that is not good, even
 * where none is needed: a client with a stale token should learn of it rather than be served as nobody. Fails with PERMISSION_DENIED for somebody whom
 * the mesh knows and we do not.
 */
export function identify(request: HeaderReader, verifiers: Verifiers): Caller | Promise<Caller> {
  if (verifiers.mesh !== undefined) {
    const known = verifiers.mesh(request.header(CLIENT_CERT_HEADER));
    if (known === "stranger") fail(PERMISSION_DENIED);
    return known === undefined || known === "gateway" ? accountCaller(request, verifiers) : serviceCaller(request, known.service);
  }
  const serviceToken = request.header(SERVICE_TOKEN_HEADER);
  if (serviceToken === undefined) return accountCaller(request, verifiers);
  return after(verifiers.services(serviceToken), (service) => serviceCaller(request, service));
}

function serviceCaller(request: HeaderReader, service: string): Caller {
  const accountId = request.header(ACCOUNT_HEADER);
  if (accountId === undefined) return { kind: "service", service };
  if (!ACCOUNT_ID.test(accountId)) {
    fail(TOKEN_INVALID, { message: `The header ${ACCOUNT_HEADER} does not hold an account's id.` });
  }
  return { kind: "service", service, accountId };
}

function accountCaller(request: HeaderReader, verifiers: Verifiers): Caller | Promise<Caller> {
  const authorization = request.header("authorization");
  if (authorization === undefined) {
    return ANONYMOUS;
  }
  const token = /^bearer +([\w.~+/=-]+)$/i.exec(authorization)?.[1];
  if (token === undefined) {
    return fail(TOKEN_INVALID, { message: "The header authorization does not read `Bearer …`." });
  }
  return after(verifiers.accounts(token), ({ accountId, operator }) => ({ kind: "account", accountId, operator }));
}

/**
 * Fails with TOKEN_MISSING or PERMISSION_DENIED unless the policy admits the caller. Being open to anyone does not admit services: the
 * calls between services are exactly those the contract names.
 */
export function admit(caller: Caller, policy: MethodPolicy): void {
  const admitted =
    caller.kind === "service"
      ? policy.services.has(caller.service)
      : policy.anyone || (caller.kind === "account" && (policy.account || (policy.operator && caller.operator)));
  if (admitted) {
    return;
  }
  if (caller.kind === "anonymous" && (policy.account || policy.operator)) {
    fail(TOKEN_MISSING);
  }
  fail(PERMISSION_DENIED, caller.kind === "service" ? { metadata: { service: caller.service } } : {});
}

/** Chains without a turn of the event loop where the value is there already. */
function after<T, R>(value: T | Promise<T>, then: (value: T) => R): R | Promise<R> {
  return value instanceof Promise ? value.then(then) : then(value);
}
