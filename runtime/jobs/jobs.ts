import type { Database } from "#runtime/database/database.ts";
import { RESUME_EVENTS } from "#runtime/database/dead-letters.ts";
import type { Subscription } from "#runtime/events/bus.ts";
import { newId } from "#runtime/ids.ts";
import { type ClaimedJob, claimJobs, finishJob, nextDueTime, planRecurring, renewLease, reportFailure } from "./claims.ts";
import { startLoop } from "./loop.ts";
import { retentionJob } from "./retention.ts";
import { planWatched, type Watch } from "./watches.ts";

const CONCURRENCY = 8;
const POLL_MS = 1_000;
const LEASE_MS = 30_000;
const TIMEOUT_MS = 60_000;
const MAX_ATTEMPTS = 10;
const BACKOFF_MS = 1_000;
const BACKOFF_MAX_MS = 5 * 60_000;
const RECURRING_KEY = "recurring";

/** One run of a job. */
export interface JobRun {
  readonly key: string;
  /** 1 for the first try since it was scheduled. */
  readonly attempt: number;
  /** Aborted when the run's time is over, the lease is lost or the process goes down: stop, another run follows. */
  readonly signal: AbortSignal;
}

/** What is done when a scheduled time has come. */
export interface JobHandler {
  /** Unique within the service, at most 64 characters, such as "inventory.expire". */
  readonly kind: string;
  /** Rows that become such jobs when their time comes. */
  readonly watches?: Watch;
  /** Tries before the job becomes a dead letter; 10 unless given. */
  readonly maxAttempts?: number;
  /** How long one run may take, in milliseconds, before its signal is aborted and its lease renewed no more; 60 s unless given. */
  readonly timeoutMs?: number;
  /** The pause after a failed attempt (1 for the first), in milliseconds; unless given from 1 s, doubling, to 5 minutes. */
  backoffMs?(attempt: number): number;
  /**
   * Does it. Resolves: done, and the job is gone, unless `tx.schedule` planned it anew meanwhile. Rejects: tried again later. May call
   * others. Two runs of one job never overlap unless the first lost its lease; a run may happen again after it succeeded (the process died before
   * the note), so the effect is guarded by the state it finds.
   */
  run(run: JobRun): Promise<void>;
}

/** What is done again and again. A failure is logged; the next interval tries again. */
export interface RecurringJob {
  readonly kind: string;
  /** From the end of one run to the start of the next, in milliseconds. The first run is at once, the first time a process knows the job. */
  readonly intervalMs: number;
  /** As of a job. */
  readonly timeoutMs?: number;
  run(signal: AbortSignal): Promise<void>;
}

/** What a job runner is started with. */
export interface JobsOptions {
  readonly database: Database;
  readonly handlers: readonly JobHandler[];
  readonly recurring?: readonly RecurringJob[];
  /** The service's consumers: their events that failed are tried again by jobs. */
  readonly consumers?: readonly Subscription[];
  /** Jobs run at once; 8 unless given. */
  readonly concurrency?: number;
  /** How long a run may be silent before another process may take it over, in milliseconds; it is renewed while it runs. 30 s unless given. */
  readonly leaseMs?: number;
  /** How often due jobs are looked for when nothing in this process wakes the runner; 1 s unless given. */
  readonly pollMs?: number;
}

/** Runs the due jobs of one service, in any number of processes. */
export interface Jobs {
  /** Runs what is due by the clock, and what becomes due through that, until nothing is. For tests. */
  runDue(): Promise<void>;
  /** Takes no more jobs; waits for those under way, up to `graceMs` (10 s unless given), then aborts their signals and waits. */
  stop(graceMs?: number): Promise<void>;
}

/** Starts the job runner of a service. */
export function startJobs(options: JobsOptions): Jobs {
  const runner = new Runner(options);
  return { runDue: () => runner.runDue(), stop: (graceMs) => runner.stop(graceMs) };
}

class Runner {
  readonly #database: Database;
  readonly #owner = newId();
  readonly #handlers = new Map<string, JobHandler>();
  readonly #recurring: readonly RecurringJob[];
  readonly #concurrency: number;
  readonly #leaseMs: number;
  readonly #running = new Map<string, Promise<void>>();
  readonly #aborted = new AbortController();
  readonly #loop;
  readonly #unlisten: () => void;
  #stopping = false;
  #planned = false;

  constructor(options: JobsOptions) {
    this.#database = options.database;
    this.#concurrency = options.concurrency ?? CONCURRENCY;
    this.#leaseMs = options.leaseMs ?? LEASE_MS;
    this.#recurring = [...(options.recurring ?? []), retentionJob(options.database)];
    for (const handler of [
      ...options.handlers,
      ...this.#recurring.map((job) => recurringHandler(this.#database, job)),
      resumeHandler(options.consumers ?? []),
    ]) {
      if (this.#handlers.has(handler.kind)) {
        throw new Error(`two jobs of "${this.#database.service}" are called "${handler.kind}".`);
      }
      this.#handlers.set(handler.kind, handler);
    }
    const pollMs = options.pollMs ?? POLL_MS;
    this.#loop = startLoop({
      name: `jobs of ${this.#database.service}`,
      log: this.#database.log,
      pollMs,
      turn: () => this.#turn(),
    });
    this.#unlisten = this.#database.onCommit(({ earliestDueTime }) => {
      if (earliestDueTime !== undefined && earliestDueTime <= this.#database.clock.now() + pollMs) {
        this.#loop.wake();
      }
    });
  }

  async runDue(): Promise<void> {
    for (;;) {
      await this.#loop.drain();
      if (this.#running.size > 0) {
        await Promise.race(this.#running.values());
      } else if (this.#stopping || (await nextDueTime(this.#database, this.#kinds(), this.#owner)) > this.#database.clock.now()) {
        return;
      }
    }
  }

  async stop(graceMs = 10_000): Promise<void> {
    this.#stopping = true;
    this.#unlisten();
    await this.#loop.stop();
    const timer = setTimeout(() => this.#aborted.abort(), graceMs);
    await Promise.all(this.#running.values());
    clearTimeout(timer);
  }

  #kinds(): string[] {
    return [...this.#handlers.keys()];
  }

  /** Claims what is due and starts it. Gives the wait until the next is due. */
  async #turn(): Promise<boolean | number> {
    if (!this.#planned) {
      for (const { kind } of this.#recurring) {
        await planRecurring(this.#database, { kind, key: RECURRING_KEY });
      }
      this.#planned = true;
    }
    const free = this.#concurrency - this.#running.size;
    if (free <= 0 || this.#stopping) {
      return false;
    }
    const nextWatched = await this.#planWatched();
    const jobs = await claimJobs(this.#database, {
      kinds: this.#kinds(),
      owner: this.#owner,
      leaseMs: this.#leaseMs,
      limit: free,
      running: this.#running,
    });
    for (const job of jobs) {
      this.#start(job);
    }
    if (jobs.length > 0) {
      return true;
    }
    const next = await nextDueTime(this.#database, this.#kinds(), this.#owner);
    return Math.min(next, nextWatched) - this.#database.clock.now();
  }

  async #planWatched(): Promise<number> {
    let next = Number.POSITIVE_INFINITY;
    for (const { kind, watches } of this.#handlers.values()) {
      if (watches !== undefined) {
        next = Math.min(next, await planWatched(this.#database, kind, watches));
      }
    }
    return next;
  }

  #start(job: ClaimedJob): void {
    const name = `${job.kind}\n${job.key}`;
    const run = this.#run(job)
      .catch((error: unknown) => {
        // The job itself has been dealt with; what failed is the note. Its lease expires, and it runs again.
        this.#database.log.error({ job: job.kind, key: job.key, err: error }, "the end of a job could not be noted");
      })
      .finally(() => {
        this.#running.delete(name);
        this.#loop.wake();
      });
    this.#running.set(name, run);
  }

  async #run(job: ClaimedJob): Promise<void> {
    const handler = this.#handlers.get(job.kind) as JobHandler;
    const lost = new AbortController();
    const timeout = AbortSignal.timeout(handler.timeoutMs ?? TIMEOUT_MS);
    const renewal = setInterval(() => {
      if (timeout.aborted) {
        // A run that does not hear its signal may never end: another process is to have the job.
        return;
      }
      renewLease(this.#database, job, this.#leaseMs).then(
        (held) => held || lost.abort(),
        (error: unknown) => this.#database.log.warn({ job: job.kind, key: job.key, err: error }, "a lease was not renewed"),
      );
    }, this.#leaseMs / 3);
    const signal = AbortSignal.any([lost.signal, this.#aborted.signal, timeout]);
    const maxAttempts = handler.maxAttempts ?? MAX_ATTEMPTS;
    let failure: { error: unknown } | undefined;
    try {
      if (job.attempt > maxAttempts) {
        // Only a process that died during the last attempt leaves it like this.
        throw new Error("the process died during each attempt.");
      }
      const run = () => handler.run({ key: job.key, attempt: job.attempt, signal });
      const { observer } = this.#database;
      await (observer === undefined ? run() : observer.jobRun(job, run));
    } catch (error) {
      failure = { error };
    } finally {
      clearInterval(renewal);
    }
    if (failure === undefined) {
      await finishJob(this.#database, job);
    } else {
      const backoffMs = (handler.backoffMs ?? defaultBackoffMs)(job.attempt);
      await reportFailure(this.#database, job, { error: failure.error, final: job.attempt >= maxAttempts, backoffMs });
    }
  }
}

/** A recurring job as one that plans its own next run. */
function recurringHandler(database: Database, { kind, intervalMs, timeoutMs, run }: RecurringJob): JobHandler {
  return {
    kind,
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    async run({ signal }) {
      try {
        await run(signal);
      } catch (error) {
        database.log.error({ job: kind, err: error }, "a recurring job failed; its next interval tries again");
      }
      await database.transaction(
        async (tx) => tx.schedule({ kind, key: RECURRING_KEY, dueTime: database.clock.now() + intervalMs }),
        { durable: false },
      );
    },
  };
}

/** The job that goes on with events a consumer of this service put aside. */
function resumeHandler(consumers: readonly Subscription[]): JobHandler {
  return {
    kind: RESUME_EVENTS,
    async run({ key }) {
      const slash = key.indexOf("/");
      const consumer = consumers.find((candidate) => candidate.consumer === key.slice(0, slash));
      if (consumer?.resume === undefined) {
        throw new Error(`no consumer of this process is called "${key.slice(0, slash)}".`);
      }
      await consumer.resume(key.slice(slash + 1));
    },
  };
}

function defaultBackoffMs(attempt: number): number {
  const full = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (attempt - 1));
  return full * (0.8 + Math.random() * 0.2);
}
