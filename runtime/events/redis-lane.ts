import { newId } from "#runtime/ids.ts";
import type { Log } from "#runtime/log.ts";
import type { Lane, StoredEvent } from "./bus.ts";
import type { Scripts } from "./redis-scripts.ts";

/** The first pause before asking how far consumers are: long when nobody waits for room, because all it is for is a mark. */
const ASK_MS = 100;
const ASK_BUSY_MS = 10;
const ASK_MAX_MS = 500;
/** Entries under way from which on it matters how soon they are through. */
const BUSY_COUNT = 250;
/** Sources that share a stream, at most. */
const SOURCES = 8;

/** What a lane needs of the bus it leads into. */
export interface LaneOptions {
  readonly scripts: Scripts;
  readonly source: string;
  readonly stream: string;
  /** The hash of the tokens, a field for each source. */
  readonly writers: string;
  /** The sorted set of the replicas that are waited for. */
  readonly replicas: string;
  readonly channel: string;
  readonly consumers: readonly string[];
  readonly maxLength: number;
  readonly log: Log;
}

interface UnderWay {
  readonly events: readonly StoredEvent[];
  /** The id of its last entry, once Redis has told it. */
  id: string | undefined;
  resolve(): void;
  reject(error: unknown): void;
}

/** The way from one partition of one outbox into its stream, guarded by a token that only an unbroken past knows. See `redis-bus.ts`. */
export class RedisLane implements Lane {
  readonly #options: LaneOptions;
  /** What Redis has, or is being sent. */
  readonly #underWay: UnderWay[] = [];
  /** What waits for room: a stream that refused would break the lane, and everything would come again. */
  readonly #waiting: UnderWay[] = [];
  #count = 0;
  #token = newId();
  #broken = false;
  #timer: NodeJS.Timeout | undefined;
  #askMs = ASK_MS;

  constructor(options: LaneOptions) {
    this.#options = options;
    const { scripts, stream, writers, replicas, source, consumers } = options;
    scripts.attach(3, stream, writers, replicas, source, this.#token, ...consumers).catch((error: unknown) => this.#break(error));
  }

  get broken(): boolean {
    return this.#broken;
  }

  async send(events: readonly StoredEvent[]): Promise<void> {
    if (this.#broken) {
      throw new Error("the way into the bus is broken.");
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ events, id: undefined, resolve, reject });
    this.#sendSome();
    return promise;
  }

  /** Sends while this source's part of the stream has room; one batch always has. */
  #sendSome(): void {
    const room = this.#options.maxLength / SOURCES;
    for (let [next] = this.#waiting; next !== undefined; [next] = this.#waiting) {
      if (this.#count > 0 && this.#count + next.events.length > room) {
        return;
      }
      this.#waiting.shift();
      this.#underWay.push(next);
      this.#count += next.events.length;
      this.#append(next);
    }
  }

  #append(sent: UnderWay): void {
    const { scripts, source, stream, writers, channel, maxLength } = this.#options;
    const expected = this.#token;
    this.#token = newId();
    const entries = sent.events.flatMap(({ type, event }) => [type, Buffer.from(event.buffer, event.byteOffset, event.byteLength)]);
    scripts.publish(2, stream, writers, source, expected, this.#token, maxLength, channel, ...entries).then(
      (reply) => {
        if (reply === "LOST" || reply === "FULL") {
          this.#break(new Error(reply === "FULL" ? `the stream ${stream} is full.` : `Redis lost what the stream ${stream} held.`));
          return;
        }
        sent.id = String(reply);
        this.#askMs = ASK_MS;
        this.#askLater();
      },
      (error: unknown) => this.#break(error),
    );
  }

  close(): void {
    this.#break(new Error("the way into the bus was closed."));
  }

  #askLater(): void {
    if (this.#timer === undefined && !this.#broken && this.#underWay.length > 0) {
      const busy = this.#waiting.length > 0 || this.#count > BUSY_COUNT;
      this.#timer = setTimeout(() => void this.#ask(), busy ? ASK_BUSY_MS : this.#askMs);
      // Waiting for consumers alone must not keep the process alive.
      this.#timer.unref();
    }
  }

  /** Asks how far the slowest consumer is. While Redis is away nothing is known, and nothing is lost yet. */
  async #ask(): Promise<void> {
    const { scripts, source, stream, writers, replicas, consumers, log } = this.#options;
    this.#askMs = Math.min(ASK_MAX_MS, this.#askMs * 1.5);
    const [first] = this.#underWay;
    if (first?.id !== undefined) {
      try {
        // One connection keeps the order: whatever was sent before this has changed the token by then.
        const reply = await scripts.passed(3, stream, writers, replicas, source, this.#token, ...consumers);
        if (reply === "LOST") {
          this.#break(new Error(`Redis lost what the stream ${stream} held.`));
        } else {
          this.#confirm(String(reply));
        }
      } catch (error) {
        log.debug({ stream, err: error }, "how far the consumers are cannot be asked; trying again");
      }
    }
    this.#timer = undefined;
    this.#askLater();
  }

  #confirm(passed: string): void {
    for (let [first] = this.#underWay; first?.id !== undefined && isAtMost(first.id, passed); [first] = this.#underWay) {
      this.#underWay.shift();
      this.#count -= first.events.length;
      this.#askMs = ASK_MS;
      first.resolve();
    }
    this.#sendSome();
  }

  #break(error: unknown): void {
    this.#broken = true;
    clearTimeout(this.#timer);
    for (const each of [...this.#underWay.splice(0), ...this.#waiting.splice(0)]) {
      each.reject(error);
    }
  }
}

/** Compares the ids of entries: milliseconds, then a number within the millisecond. */
function isAtMost(id: string, limit: string): boolean {
  const [ms = 0, number = 0] = id.split("-").map(Number);
  const [limitMs = 0, limitNumber = 0] = limit.split("-").map(Number);
  return ms < limitMs || (ms === limitMs && number <= limitNumber);
}
