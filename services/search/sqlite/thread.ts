import { parentPort } from "node:worker_threads";

/** A call to a thread. */
export interface ThreadCall {
  readonly id: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

/** A thread's answer: a result, or the message of what went wrong. */
export type ThreadAnswer =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly failure: string; readonly corrupt: boolean };

/** SQLITE_CORRUPT and SQLITE_NOTADB: the file itself is broken. */
const BROKEN_FILE: ReadonlySet<unknown> = new Set([11, 26]);

/** Answers calls in this thread, one after the other, in the order they came. */
export function serve<Calls extends object>(calls: Calls): void {
  const port = parentPort;
  if (port === null) {
    throw new Error("this module runs in a worker thread only.");
  }
  const methods = calls as Readonly<Record<string, (...args: readonly unknown[]) => unknown>>;
  port.on("message", ({ id, method, args }: ThreadCall) => {
    let answer: ThreadAnswer;
    try {
      answer = { id, result: methods[method]?.(...args) };
    } catch (error) {
      const code = (error as { errcode?: number } | null)?.errcode;
      answer = {
        id,
        failure: error instanceof Error ? error.message : String(error),
        corrupt: BROKEN_FILE.has((code ?? 0) & 0xff),
      };
    }
    port.postMessage(answer);
  });
}
