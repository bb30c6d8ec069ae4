import { Code, ConnectError } from "@connectrpc/connect";
import { createDeadlineSignal, createLinkedAbortController, getAbortSignalReason } from "@connectrpc/connect/protocol";

/** The signal of one call for those who look at it: aborted when the caller gives up, when its time is over, and when it has ended. */
export class CallLife {
  readonly #caller: AbortSignal | undefined;
  readonly #deadline: number;
  #controller: AbortController | undefined;
  #cleanup: (() => void) | undefined;
  #ended = false;

  constructor(caller: AbortSignal | undefined, deadline: number) {
    this.#caller = caller;
    this.#deadline = deadline;
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      const { signal, cleanup } = createDeadlineSignal(
        this.#deadline === Number.POSITIVE_INFINITY ? undefined : Math.max(this.#deadline - Date.now(), 1),
      );
      this.#cleanup = cleanup;
      this.#controller = createLinkedAbortController(this.#caller, signal);
      if (this.#ended) this.end();
    }
    return this.#controller.signal;
  }

  /** Whoever watches the signal may fail because of it in words of their own. */
  errorOf(error: unknown): ConnectError {
    const signal = this.#controller?.signal ?? this.#caller;
    return signal?.aborted ? ConnectError.from(getAbortSignalReason(signal), Code.Canceled) : ConnectError.from(error);
  }

  end(): void {
    this.#ended = true;
    this.#cleanup?.();
    this.#controller?.abort();
  }
}
