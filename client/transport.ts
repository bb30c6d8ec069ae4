import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { isRead, isRepeatable } from "./calls.ts";
import { retryAfterMsOf } from "./errors.ts";

/** What gives the token of who is signed in; undefined calls without one. Asked at every attempt. */
export type TokenSource = () => string | undefined | Promise<string | undefined>;

/** How to call. */
export interface SoukTransportOptions {
  /** Where the marketplace answers, such as "https://api.example". */
  readonly baseUrl: string;
  readonly token?: TokenSource;
  /** How long a call without a timeout of its own may take, attempts included, in ms; 30 s unless given. Streams have none. */
  readonly timeoutMs?: number;
  /** How often a repeatable call is tried in all; 3 unless given. 1: never again, where a mesh or a proxy retries already. */
  readonly maxAttempts?: number;
  /** Whether reads travel as GET, so that browsers and CDNs may keep what the answer allows; true unless given. */
  readonly useHttpGet?: boolean;
  /** Protobuf instead of JSON: smaller, and not to be read in a browser's tools; false unless given. */
  readonly useBinaryFormat?: boolean;
  /** Interceptors of one's own, around all attempts. */
  readonly interceptors?: readonly Interceptor[];
  /** Another fetch than the runtime's own. */
  readonly fetch?: typeof globalThis.fetch;
}

const TIMEOUT_MS = 30_000;
const MAX_ATTEMPTS = 3;
/** The first wait before another attempt; it doubles up to the longest. The half of it is chance. */
const WAIT_MS = 100;
const MAX_WAIT_MS = 2_000;

/** A transport for browsers, Node and whatever else has `fetch`: a token on every call, and repeatable calls tried again. */
export function createSoukTransport(options: SoukTransportOptions): Transport {
  const { timeoutMs: defaultTimeoutMs = TIMEOUT_MS, useHttpGet = true, useBinaryFormat = false } = options;
  const { unary, stream } = createConnectTransport({
    baseUrl: options.baseUrl,
    useHttpGet,
    useBinaryFormat,
    interceptors: [...(options.interceptors ?? []), ...soukInterceptors(options), ...(useHttpGet ? [plainReads] : []), named],
    ...(options.fetch === undefined ? {} : { fetch: options.fetch }),
  });
  return {
    // The library's own default would bound streams, too.
    unary: (method, signal, timeoutMs, ...rest) => unary(method, signal, timeoutMs ?? defaultTimeoutMs, ...rest),
    stream,
  };
}

/** The token and the attempts, for any other transport: put them into its `interceptors`. */
export function soukInterceptors({
  token,
  maxAttempts = MAX_ATTEMPTS,
}: Pick<SoukTransportOptions, "token" | "maxAttempts">): Interceptor[] {
  const signedIn: Interceptor = (next) => async (request) => {
    const value = await token?.();
    if (value !== undefined) request.header.set("Authorization", `Bearer ${value}`);
    return next(request);
  };
  return [retrying(maxAttempts), signedIn];
}

/** Tries repeatable unary calls again when they met nobody or a busy server, with growing waits, never past the call's deadline. */
function retrying(maxAttempts: number): Interceptor {
  return (next) => async (request) => {
    if (request.stream || !isRepeatable(request.method)) return next(request);
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await next(request);
      } catch (error) {
        if (attempt >= maxAttempts || request.signal.aborted || !isWorthAnotherAttempt(error)) throw error;
        const longest = Math.min(WAIT_MS * 2 ** (attempt - 1), MAX_WAIT_MS);
        await wait(Math.max(retryAfterMsOf(error) ?? 0, longest * (0.5 + Math.random() / 2)), request.signal);
        if (request.signal.aborted) throw error;
      }
    }
  };
}

function isWorthAnotherAttempt(error: unknown): boolean {
  return error instanceof ConnectError && (error.code === Code.Unavailable || retryAfterMsOf(error) !== undefined);
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/**
 * A read that anybody may make asks for nothing that a browser would first ask the server's leave for, once for each URL: the time that it has stays
 * on this side, and the server's own bound is on the other.
 */
const plainReads: Interceptor = (next) => (request) => {
  if (isRead(request.method) && !request.header.has("Authorization")) request.header.delete("Connect-Timeout-Ms");
  return next(request);
};

/** A connection that failed is an error of `fetch` without a code, in words that differ from browser to browser. */
const named: Interceptor = (next) => async (request) => {
  const naming = (error: unknown): never => {
    if (error instanceof ConnectError || request.signal.aborted) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new ConnectError(`The marketplace cannot be reached: ${why}`, Code.Unavailable, undefined, undefined, error);
  };
  const response = await next(request).catch(naming);
  if (!response.stream) return response;
  return {
    ...response,
    message: (async function* () {
      try {
        yield* response.message;
      } catch (error) {
        naming(error);
      }
    })(),
  };
};
