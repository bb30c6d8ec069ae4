import { type ClientRequest, Agent as HttpAgent, type IncomingMessage, request as requestHttp } from "node:http";
import { Agent as HttpsAgent, request as requestHttps } from "node:https";
import type { Observer } from "#runtime/telemetry/observer.ts";
import type { Outcomes, Processor, ProcessorBooks } from "./processor.ts";
import { ProcessorTimeout, ProcessorUnreachable } from "./processor.ts";
import {
  BOOKS_HEADER,
  booksOf,
  type ErrorCode,
  type Fields,
  fieldsOf,
  identityOf,
  jsonOf,
  KEY_HEADER,
  MAX_BYTES,
  NotInContract,
  OUTCOMES,
  type ProcessorIdentity,
  voidOf,
} from "./processor-contract.ts";

/** The most connections to the processor; further calls wait for one, within their time. */
const MAX_CONNECTIONS = 64;

/** Where a processor is, and who may be it. */
export interface HttpProcessorOptions {
  /** Below which its paths stand, such as https://processor.example/v1. */
  readonly url: string;
  /** What it knows us by. */
  readonly token: string | undefined;
  /** Looks at who answers before anything is asked of it; throws a sentence unless payments may be with it. */
  admit(identity: ProcessorIdentity): Promise<void>;
  /** Is told of every request. */
  readonly observer?: Pick<Observer, "httpRequest"> | undefined;
}

/** A processor in another process. */
export interface HttpProcessor extends Processor {
  /**
   * Makes sure who is there, so that the first payment need not.
   *
   * @throws OtherProcessor a sentence, when payments may not be with it. @throws ProcessorUnreachable when nobody can tell now.
   */
  ready(signal: AbortSignal): Promise<void>;
  close(): void;
}

/** Payments may not be with the processor that answers. */
export class OtherProcessor extends ProcessorUnreachable {
  constructor(sentence: string) {
    super(sentence);
    this.message = sentence;
  }
}

/**
 * Speaks to a processor by the contract of docs/processor.md. What went wrong before a request was sent is ProcessorUnreachable, as is what the processor
 * says it did not do; all else that is no answer of the contract leaves the outcome open: ProcessorTimeout.
 */
export function openHttpProcessor(options: HttpProcessorOptions): HttpProcessor {
  return new OpenHttpProcessor(options);
}

interface Call {
  readonly path: string;
  readonly body?: object;
  readonly key?: string;
}

class OpenHttpProcessor implements HttpProcessor {
  readonly #options: HttpProcessorOptions;
  readonly #line: Line;
  /** Who is there, once it was admitted. */
  #admitted: Promise<ProcessorIdentity> | undefined;

  constructor(options: HttpProcessorOptions) {
    this.#options = options;
    this.#line = openLine(options);
  }

  async authorize(key: string, order: object, signal: AbortSignal): Promise<Outcomes["authorization"]> {
    return this.#command("authorizations", key, order, OUTCOMES.authorization, signal);
  }

  async capture(key: string, authorizationKey: string, signal: AbortSignal): Promise<Outcomes["capture"]> {
    return this.#command("captures", key, { authorizationKey }, OUTCOMES.capture, signal);
  }

  async void(key: string, authorizationKey: string, signal: AbortSignal): Promise<{ readonly state: "voided" | "not_found" }> {
    return this.#command("voids", key, { authorizationKey }, voidOf, signal);
  }

  async refund(key: string, authorizationKey: string, signal: AbortSignal): Promise<Outcomes["refund"]> {
    return this.#command("refunds", key, { authorizationKey }, OUTCOMES.refund, signal);
  }

  async payout(key: string, order: object, signal: AbortSignal): Promise<Outcomes["payout"]> {
    return this.#command("payouts", key, order, OUTCOMES.payout, signal);
  }

  async find<K extends keyof Outcomes>(kind: K, key: string, signal: AbortSignal): Promise<Outcomes[K] | undefined> {
    const path = `outcomes?${new URLSearchParams({ kind, key })}`;
    return this.#ask({ path }, signal, ({ outcome }) => {
      // Only this says that nothing has arrived. A missing page may be anybody's, and would lead to a second authorization.
      if (outcome === null) return undefined;
      if (typeof outcome !== "object") throw new NotInContract("outcome is no object");
      return OUTCOMES[kind](outcome as Fields) as Outcomes[K];
    });
  }

  async books(currencyCode: string, signal: AbortSignal): Promise<ProcessorBooks> {
    return this.#ask({ path: `books?${new URLSearchParams({ currencyCode })}` }, signal, booksOf);
  }

  async ready(signal: AbortSignal): Promise<void> {
    await this.#identity(signal);
  }

  close(): void {
    this.#line.close();
  }

  #command<T>(path: string, key: string, body: object, read: (fields: Fields) => T, signal: AbortSignal): Promise<T> {
    return this.#ask({ path, key, body }, signal, read);
  }

  async #ask<T>(call: Call, signal: AbortSignal, read: (fields: Fields) => T): Promise<T> {
    const { processorId } = await this.#identity(signal);
    try {
      return await this.#line.ask(call, processorId, signal, read);
    } catch (error) {
      // Somebody else's books may have come in its place: look again before the next call.
      if (error instanceof ProcessorUnreachable) this.#admitted = undefined;
      throw error;
    }
  }

  /** Asked until it is known; a failure is nobody's outcome, so nothing was done. */
  async #identity(signal: AbortSignal): Promise<ProcessorIdentity> {
    const asked = this.#admitted ?? this.#line.ask({ path: "identity" }, undefined, signal, identityOf).then(this.#admit);
    this.#admitted = asked;
    try {
      return await asked;
    } catch (error) {
      if (this.#admitted === asked) this.#admitted = undefined;
      throw error instanceof ProcessorTimeout ? new ProcessorUnreachable(error.message) : error;
    }
  }

  readonly #admit = async (identity: ProcessorIdentity): Promise<ProcessorIdentity> => {
    await this.#options.admit(identity);
    return identity;
  };
}

/** Connections to a processor. */
interface Line {
  ask<T>(call: Call, books: string | undefined, signal: AbortSignal, read: (fields: Fields) => T): Promise<T>;
  close(): void;
}

function openLine({ url, token, observer }: HttpProcessorOptions): Line {
  const secure = url.startsWith("https:");
  const agent = new (secure ? HttpsAgent : HttpAgent)({ keepAlive: true, maxSockets: MAX_CONNECTIONS });
  const send = secure ? requestHttps : requestHttp;
  const methodOf = ({ body }: Call) => (body === undefined ? "GET" : "POST");
  const begin = (call: Call, books: string | undefined, signal: AbortSignal): ClientRequest => {
    const { path, key, body } = call;
    const text = body === undefined ? undefined : jsonOf(body);
    const headers = {
      accept: "application/json",
      ...(text !== undefined && { "content-type": "application/json", "content-length": Buffer.byteLength(text) }),
      ...(key !== undefined && { [KEY_HEADER]: key }),
      ...(books !== undefined && { [BOOKS_HEADER]: books }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    };
    return send(`${url}/${path}`, { agent, signal, headers, method: methodOf(call) }).end(text);
  };
  return {
    async ask(call, books, signal, read) {
      const what = call.key ?? call.path;
      let sentBefore = false;
      for (;;) {
        const [name] = call.path.split("?", 1);
        const ended = observer?.httpRequest({ method: methodOf(call), url: `${url}/${name}`, resends: sentBefore ? 1 : 0 });
        const { sent, stale, answer, error } = await exchange(() => begin(call, books, signal), secure);
        ended?.(answer ?? { error });
        if (answer !== undefined) return understand(answer, what, read);
        // The processor had closed a connection that lay idle. Under its key the call may be sent again.
        if (stale && !sentBefore && !signal.aborted) {
          sentBefore = true;
          continue;
        }
        const why = `${what} (${error?.message ?? "no answer"})`;
        throw sent || sentBefore ? new ProcessorTimeout(why) : new ProcessorUnreachable(why);
      }
    },
    close: () => agent.destroy(),
  };
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

interface Exchange {
  /** Whether anything may have left. */
  readonly sent: boolean;
  /** Whether it failed on a connection that had lain idle, without a byte of an answer. */
  readonly stale: boolean;
  readonly answer?: Answer;
  readonly error?: Error;
}

function exchange(begin: () => ClientRequest, secure: boolean): Promise<Exchange> {
  return new Promise((resolve) => {
    let sent = false;
    let heard = false;
    const request = begin();
    const failed = (error: NodeJS.ErrnoException) => {
      const stale = request.reusedSocket && !heard && (error.code === "ECONNRESET" || error.code === "EPIPE");
      resolve({ sent, stale, error });
    };
    request.on("socket", (socket) => {
      if (!socket.connecting) sent = true;
      // A request waits in the process until its connection is made, with TLS until the other side has shown who it is.
      else socket.once(secure ? "secureConnect" : "connect", () => (sent = true));
    });
    request.on("error", failed);
    request.on("response", (response) => {
      heard = true;
      textOf(response).then((text) => resolve({ sent, stale: false, answer: { status: response.statusCode ?? 0, text } }), failed);
    });
  });
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Gives what an answer says. Throws where it says that nothing was done, and where it says nothing. */
function understand<T>({ status, text }: Answer, what: string, read: (fields: Fields) => T): T {
  let fields: Fields;
  try {
    fields = fieldsOf(text);
    if (status === 200) return read(fields);
  } catch (error) {
    if (!(error instanceof NotInContract)) throw error;
    throw new ProcessorTimeout(`${what} (it answers ${status}: ${error.message})`);
  }
  const { code, message } = { ...(fields.error as { code?: ErrorCode; message?: string } | undefined) };
  const says = `${what} (it answers ${status} ${String(code).slice(0, 100)}: ${String(message).slice(0, 300)})`;
  switch (code) {
    case "REFUSED":
      throw new Error(`the payment processor refuses: ${says}.`);
    case "UNAUTHENTICATED":
    case "OTHER_BOOKS":
    case "UNAVAILABLE":
      throw new ProcessorUnreachable(says);
    default:
      throw new ProcessorTimeout(says);
  }
}
