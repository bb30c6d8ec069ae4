import { setTimeout as sleep } from "node:timers/promises";
import type { DescMethodUnary, Message, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { type CallOptions, ConnectError } from "@connectrpc/connect";
import { reasonOf } from "#runtime/errors.ts";
import type { Fleet } from "../support/processes.ts";

/** A command that was answered: from then on it must never be otherwise. */
export interface Acknowledged {
  readonly service: string;
  readonly method: DescMethodUnary;
  readonly account: string;
  readonly requestId: string;
  /** The answer, or the reason of a refusal. */
  readonly answer: Message | string;
}

/** Nobody knows what became of the command: it is to be sent again. */
const UNKNOWN = new Set([
  "UNAVAILABLE",
  "DEPENDENCY_UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "OVERLOADED",
  "PROCESSOR_OUTCOME_UNKNOWN",
  "PROCESSOR_UNAVAILABLE",
]);
const CALL_MS = 4_000;
const PAUSE_MS = 200;
/** After so long a command that is not answered is a finding. */
const ANSWER_MAX_MS = 180_000;

/** What the callers were told. Sends commands through the services' doors, each under its request_id until it is answered. */
export class Ledger {
  readonly acknowledged: Acknowledged[] = [];
  /** What no caller should ever be told. */
  readonly findings: string[] = [];
  /** Calls that had to be repeated. */
  repeats = 0;
  readonly #fleet: Pick<Fleet, "client">;
  #closed = false;

  constructor(fleet: Pick<Fleet, "client">) {
    this.#fleet = fleet;
  }

  /** Nothing is sent again from now on. */
  close(): void {
    this.#closed = true;
  }

  /** Gives the answer; undefined when it was refused with one of the reasons that are `expected`. */
  async send<D extends DescMethodUnary>(
    account: string,
    method: D,
    request: MessageInitShape<D["input"]> & { requestId: string },
    expected: readonly string[] = [],
  ): Promise<MessageShape<D["output"]> | undefined> {
    const service = method.parent.typeName.split(".")[1] as string;
    type Calls = Record<string, (request: unknown, options: CallOptions) => Promise<MessageShape<D["output"]>>>;
    const call = (this.#fleet.client(method.parent, { account }, service) as unknown as Calls)[method.localName];
    if (call === undefined) throw new Error(`there is no ${method.name}.`);
    const note = (answer: Message | string) =>
      this.acknowledged.push({ service, method, account, requestId: request.requestId, answer });
    for (const end = Date.now() + ANSWER_MAX_MS; ; this.repeats++) {
      try {
        const answer = await call(request, { timeoutMs: CALL_MS });
        note(answer);
        return answer;
      } catch (error) {
        if (this.#closed) return undefined;
        const reason = reasonOf(error);
        if (reason !== undefined && expected.includes(reason)) {
          note(reason);
          return undefined;
        }
        const isUnknown = reason === undefined ? error instanceof ConnectError : UNKNOWN.has(reason);
        if (!isUnknown || Date.now() > end) {
          this.findings.push(`${method.name} of ${account} under ${request.requestId} was answered ${String(error)}`);
          return undefined;
        }
        await sleep(PAUSE_MS / 2 + Math.random() * PAUSE_MS);
      }
    }
  }
}
