import type { Caller } from "#runtime/call.ts";
import { fail, PERMISSION_DENIED, TOKEN_INVALID, TOKEN_MISSING } from "#runtime/errors.ts";
import type { MethodPolicy } from "#runtime/policy.ts";
import { ACCOUNT_ID, type AccountClaims, type Verifier } from "#runtime/tokens.ts";

/** The header in which a service names the account it acts for. Believed from services only. */
export const ACCOUNT_HEADER = "x-souk-account";
/** The header that carries a service's token; an account's stands in `authorization`. */
export const SERVICE_TOKEN_HEADER = "x-souk-service-token";

/** What tokens are checked with. */
export interface Verifiers {
  readonly accounts: Verifier<AccountClaims>;
  readonly services: Verifier<string>;
}

/** A request whose headers can be read, by their names in lower case. */
export interface HeaderReader {
  header(name: string): string | undefined;
}

const ANONYMOUS: Caller = { kind: "anonymous" };

/**
 * Who is calling. A service's token wins over an account's. Fails with TOKEN_EXPIRED or TOKEN_INVALID on a token that is not good, even
 * where none is needed: a client with a stale token should learn of it rather than be served as nobody.
 */
export function identify(request: HeaderReader, verifiers: Verifiers): Caller | Promise<Caller> {
  const serviceToken = request.header(SERVICE_TOKEN_HEADER);
  if (serviceToken !== undefined) {
    const accountId = request.header(ACCOUNT_HEADER);
    if (accountId !== undefined && !ACCOUNT_ID.test(accountId)) {
      fail(TOKEN_INVALID, { message: `The header ${ACCOUNT_HEADER} does not hold an account's id.` });
    }
    return after(verifiers.services(serviceToken), (service) =>
      accountId === undefined ? { kind: "service", service } : { kind: "service", service, accountId },
    );
  }
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
