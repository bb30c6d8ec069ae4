import { createHash, timingSafeEqual } from "node:crypto";
import type { Door } from "#runtime/service.ts";
import { type Outcomes, type Processor, ProcessorTimeout, ProcessorUnreachable } from "./processor.ts";
import {
  authorizationOrder,
  BOOKS_HEADER,
  currencyOf,
  type ErrorCode,
  type Fields,
  fieldsOf,
  jsonOf,
  KEY_HEADER,
  MAX_BYTES,
  NotInContract,
  OUTCOMES,
  type ProcessorIdentity,
  payoutOrder,
  textOf,
} from "./processor-contract.ts";

/** Below which path a processor answers. */
export const PROCESSOR_PATH = "/v1/";

/** What is served, and to whom. */
export interface ProcessorDoorsOptions {
  readonly processor: Processor;
  readonly identity: ProcessorIdentity;
  /** What callers must send; anybody may call unless given. */
  readonly token: string | undefined;
}

type Command = (key: string, fields: Fields, signal: AbortSignal) => Promise<object>;

/** Serves a processor by the contract of docs/processor.md. */
export function processorDoors({ processor, identity, token }: ProcessorDoorsOptions): readonly Door[] {
  const commands: Readonly<Record<string, Command>> = {
    authorizations: (key, fields, signal) => processor.authorize(key, authorizationOrder(fields), signal),
    captures: (key, fields, signal) => processor.capture(key, textOf(fields, "authorizationKey"), signal),
    voids: (key, fields, signal) => processor.void(key, textOf(fields, "authorizationKey"), signal),
    refunds: (key, fields, signal) => processor.refund(key, textOf(fields, "authorizationKey"), signal),
    payouts: (key, fields, signal) => processor.payout(key, payoutOrder(fields), signal),
  };
  const questions: Readonly<Record<string, (fields: Fields, signal: AbortSignal) => Promise<object>>> = {
    identity: async () => identity,
    books: (fields, signal) => processor.books(currencyOf(fields), signal),
    async outcomes(fields, signal) {
      const kind = textOf(fields, "kind");
      if (!Object.hasOwn(OUTCOMES, kind)) throw new NotInContract(`kind is none of ${Object.keys(OUTCOMES).join(", ")}`);
      return { outcome: (await processor.find(kind as keyof Outcomes, textOf(fields, "key"), signal)) ?? null };
    },
  };
  const guarded = (work: (name: string, request: Request) => Promise<object | undefined>) => async (request: Request) => {
    const name = new URL(request.url).pathname.slice(PROCESSOR_PATH.length);
    if (token !== undefined && !isToken(token, request)) return refusal(401, "UNAUTHENTICATED", "the bearer token is not ours");
    const books = request.headers.get(BOOKS_HEADER);
    if (books !== null && books !== identity.processorId) return refusal(409, "OTHER_BOOKS", "these are other books");
    try {
      const answer = await work(name, request);
      return answer === undefined ? refusal(404, "REFUSED", `there is nothing at ${name.slice(0, 100)}`) : json(200, answer);
    } catch (error) {
      return failed(error);
    }
  };
  return [
    {
      method: "GET",
      path: PROCESSOR_PATH,
      handle: guarded(async (name, request) =>
        own(questions, name)?.(Object.fromEntries(new URL(request.url).searchParams), request.signal),
      ),
    },
    {
      method: "POST",
      path: PROCESSOR_PATH,
      handle: guarded(async (name, request) => {
        const text = await request.text();
        if (text.length > MAX_BYTES) throw new NotInContract(`the request is larger than ${MAX_BYTES} bytes`);
        return own(commands, name)?.(keyOf(request), fieldsOf(text), request.signal);
      }),
    },
  ];
}

function own<T>(all: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(all, name) ? all[name] : undefined;
}

function keyOf(request: Request): string {
  return textOf({ [KEY_HEADER]: request.headers.get(KEY_HEADER) }, KEY_HEADER);
}

function isToken(token: string, request: Request): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(`Bearer ${token}`), digest(request.headers.get("authorization") ?? ""));
}

function failed(error: unknown): Response {
  if (error instanceof ProcessorTimeout) return refusal(504, "UNKNOWN", error.message);
  if (error instanceof ProcessorUnreachable) return refusal(503, "UNAVAILABLE", error.message);
  // What the caller got wrong; and what a processor throws beside the two above is a mistake of its caller, too.
  return refusal(error instanceof NotInContract ? 400 : 409, "REFUSED", (error as Error).message);
}

function refusal(status: number, code: ErrorCode | "UNKNOWN", message: string): Response {
  return json(status, { error: { code, message } });
}

function json(status: number, value: object): Response {
  return new Response(jsonOf(value), { status, headers: { "content-type": "application/json", "cache-control": "no-store" } });
}
