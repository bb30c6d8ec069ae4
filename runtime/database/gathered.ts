import { refuseBesideTransaction } from "./scope.ts";

/** Keys that one statement asks for. */
const KEYS_MAX = 250;
const GATHER_MAX_MS = 50;

/** A read of rows by key. */
export interface GatheredRead<R> {
  /** Reads the rows of all these keys, each key once, by one statement outside transactions. */
  read(keys: readonly string[]): Promise<readonly R[]>;
  keyOf(row: R): string;
  /** How long who asks is kept waiting for a statement under way, so as to be gathered for the next one; 50 ms unless given. */
  gatherMaxMs?: number;
}

/**
 * Gives a read of one row in which everybody who asks at about the same time shares a statement, so that it costs a crowd as little as one. The statement
 * begins after the question: it sees all that was committed before.
 */
export function gathered<R>({
  read,
  keyOf,
  gatherMaxMs = GATHER_MAX_MS,
}: GatheredRead<R>): (key: string) => Promise<R | undefined> {
  const asked = new Map<string, PromiseWithResolvers<R | undefined>>();
  let busy = false;

  function plan(): void {
    if (!busy && asked.size > 0) {
      busy = true;
      // Who asks in the same turn of the event loop comes along.
      setImmediate(send);
    }
  }

  async function send(): Promise<void> {
    const batch = [...asked].slice(0, KEYS_MAX);
    for (const [key] of batch) {
      asked.delete(key);
    }
    const free = once(() => {
      busy = false;
      plan();
    });
    const slow = setTimeout(free, gatherMaxMs);
    try {
      const rows = new Map((await read(batch.map(([key]) => key))).map((row) => [keyOf(row), row]));
      for (const [key, { resolve }] of batch) {
        resolve(rows.get(key));
      }
    } catch (error) {
      for (const [, { reject }] of batch) {
        reject(error);
      }
    } finally {
      clearTimeout(slow);
      free();
    }
  }

  return (key) => {
    refuseBesideTransaction();
    let question = asked.get(key);
    if (question === undefined) {
      question = Promise.withResolvers();
      asked.set(key, question);
      plan();
    }
    return question.promise;
  };
}

function once(work: () => void): () => void {
  let done = false;
  return () => {
    if (!done) {
      done = true;
      work();
    }
  };
}
