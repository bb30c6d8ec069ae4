import type { Compilable, Selectable } from "kysely";
import { executeTogether, type Outcome } from "#runtime/database/batch.ts";
import type { Database } from "#runtime/database/database.ts";
import type { Leases } from "#runtime/database/leases.ts";
import type { OutboxTable } from "#runtime/database/tables.ts";
import type { Log } from "#runtime/log.ts";
import type { Bus, Lane } from "./bus.ts";
import { type Gap, Gaps } from "./relay-gaps.ts";

const BACKOFF_MS = 50;
const BACKOFF_MAX_MS = 5_000;
const MARK_SIZE = 1_000;
/** How long a confirmed row may wait to be marked together with others; who dies meanwhile has it sent again. */
const MARK_MS = 50;
/** Events of one outbox that may be under way without being confirmed. */
const WINDOW = 100_000;
/** How long after a look the next one gathers what is committed meanwhile: a look costs as much as many rows. */
const GATHER_MS = 5;

/** What sending ahead needs of its relay. */
export interface AheadOptions {
  readonly database: Database;
  readonly openLane: NonNullable<Bus["lane"]>;
  readonly leases: Leases;
  readonly partitions: readonly number[];
  readonly leaseName: (partition: number) => string;
  readonly batchSize: number;
  readonly pollMs: number;
  readonly log: Log;
}

type FoundRow = Pick<Selectable<OutboxTable>, "position" | "publish_time">;
type OpenRow = Pick<Selectable<OutboxTable>, "position" | "partition_no" | "type" | "event">;

/**
 * Sends an outbox through lanes without waiting for consumers, and marks rows once all consumers passed them. A lane that breaks, or a partition
 * that another process took over and gave back, begins again with its first unmarked row.
 */
export class SendAhead {
  readonly #options: AheadOptions;
  readonly #lanes = new Map<number, Lane>();
  /** The partition of each position that is under way or confirmed and not yet marked. */
  readonly #underWay = new Map<number, number>();
  #confirmed: number[] = [];
  #markTimer: NodeJS.Timeout | undefined;
  #markDue = false;
  /** Whether this process committed events that no turn has looked for yet. */
  #appended = true;
  /** Whether the last turn found as much as it can take: then it goes on with what is new, and looks for what came late afterwards. */
  #full = false;
  /** Everything this process may send up to here is under way, but for rows committed late. */
  #cursor = 0;
  readonly #gaps = new Gaps();
  #lookTime = 0;
  #countTime = 0;
  #failures = 0;
  #stopped = false;
  #nudged = false;
  #wake: (() => void) | undefined;

  constructor(options: AheadOptions) {
    this.#options = options;
  }

  /** This process committed events. */
  appended(): void {
    this.#appended = true;
    this.nudge();
  }

  /** Ends a wait for something to happen. */
  nudge(): void {
    this.#nudged = true;
    this.#wake?.();
  }

  /** Waits no more; what is under way is sent again by the next process. */
  stop(): void {
    this.#stopped = true;
    this.nudge();
  }

  close(): void {
    clearTimeout(this.#markTimer);
    for (const lane of this.#lanes.values()) lane.close();
    this.#lanes.clear();
  }

  /** One step. True: there may be more to do, or something is still under way. */
  async turn(): Promise<boolean> {
    this.#nudged = false;
    const { database, leases, partitions, leaseName, batchSize, pollMs, log } = this.#options;
    if (this.#underWay.size === 0 && !this.#appended && !(await this.#anyWaiting())) return false;
    await this.#gather();
    this.#appended = false;
    const held = await leases.take();
    const mine = partitions.filter((partition) => held.has(leaseName(partition)));
    if (this.#dropLanes(mine)) {
      this.#failures++;
      const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** this.#failures);
      log.warn({ database: database.service, failures: this.#failures }, "events under way were lost; sending them again");
      for (const until = Date.now() + backoff; !this.#stopped && Date.now() < until; ) {
        this.#nudged = false;
        await this.#pause(until - Date.now());
      }
      return true;
    }
    if (mine.length === 0) {
      await this.#mark();
      return false;
    }
    const wasFull = this.#full;
    const { rows, late } = await this.#look(mine, batchSize);
    this.#send(rows);
    if (this.#full || wasFull || late) return true;
    if (this.#underWay.size === 0) return false;
    await this.#pause(pollMs);
    return true;
  }

  async #anyWaiting(): Promise<boolean> {
    const { sql } = this.#options.database;
    return (await sql.selectFrom("outbox").select("position").where("publish_time", "is", null).limit(1).execute()).length > 0;
  }

  /** Not where more is known to wait. */
  async #gather(): Promise<void> {
    const until = this.#lookTime + GATHER_MS;
    for (let now = performance.now(); now < until && !this.#full && !this.#stopped; now = performance.now()) {
      this.#nudged = false;
      await this.#pause(until - now);
    }
    this.#nudged = false;
    this.#lookTime = performance.now();
  }

  /**
   * Marks what is to be marked and reads what is new, in one round trip, and then what appeared below the cursor meanwhile: in this order, so that who follows in an
   * aggregate is not seen without who was first, and the late ones go first. Now and then, and before nothing is under way any more, open rows are counted: where
   * there are more than we know of, `late` says so, and the next look begins with the first row that is not marked.
   */
  async #look(mine: readonly number[], limit: number): Promise<{ rows: readonly OpenRow[]; late: boolean }> {
    const { sql } = this.#options.database;
    const marked = this.#markable();
    const marking = marked.length === 0 ? [] : [this.#marking(marked)];
    const known = this.#underWay.size - marked.length;
    if (known >= WINDOW) {
      this.#full = false;
      await executeTogether(sql, marking);
      this.#forget(marked);
      return { rows: [], late: false };
    }
    const gaps = this.#gaps.open(this.#lookTime);
    const filling = gaps.length === 0 ? [] : [this.#rowsIn(gaps)];
    const counting = this.#countDue(known) ? [this.#countOpen(mine)] : [];
    const reading = this.#openRows(mine, limit).where("position", ">", this.#cursor);
    const outcomes = await executeTogether(sql, [...marking, reading, ...filling, ...counting] as Compilable<unknown>[]);
    this.#forget(marked);
    const [read, ...others] = outcomes.slice(marking.length) as readonly Outcome<unknown>[];
    const fresh = (read?.rows ?? []) as OpenRow[];
    const came = filling.length === 0 ? [] : await this.#came((others[0]?.rows ?? []) as FoundRow[], mine);
    const [open] = (counting.length === 0 ? [] : (others.at(-1)?.rows ?? [])) as { count: number }[];
    this.#gaps.note(this.#cursor, fresh, this.#lookTime);
    const late = open !== undefined && Number(open.count) > this.#underWay.size + came.length;
    this.#full = !late && fresh.length === limit;
    this.#cursor = late ? 0 : (fresh.at(-1)?.position ?? this.#cursor);
    return { rows: late ? [] : [...came, ...fresh], late };
  }

  /** Of the rows in gaps those that came late and are ours; above the cursor they are found anyway. */
  async #came(found: readonly FoundRow[], mine: readonly number[]): Promise<readonly OpenRow[]> {
    this.#gaps.filled(found);
    const positions = found
      .filter(({ position, publish_time }) => publish_time === null && position <= this.#cursor && !this.#underWay.has(position))
      .map(({ position }) => position);
    return positions.length === 0 ? [] : this.#openRows(mine, positions.length).where("position", "in", positions).execute();
  }

  #countDue(known: number): boolean {
    if (this.#full || this.#cursor === 0 || (known > 0 && this.#lookTime - this.#countTime < this.#options.pollMs)) return false;
    this.#countTime = this.#lookTime;
    return true;
  }

  #openRows(mine: readonly number[], limit: number) {
    return this.#options.database.sql
      .selectFrom("outbox")
      .select(["position", "partition_no", "type", "event"])
      .where("publish_time", "is", null)
      .where("partition_no", "in", [...mine])
      .orderBy("position")
      .limit(limit);
  }

  /** Open or not, of whichever partition: who has a row is no gap. */
  #rowsIn(gaps: readonly Gap[]) {
    return this.#options.database.sql
      .selectFrom("outbox")
      .select(["position", "publish_time"])
      .where((eb) => eb.or(gaps.map(({ from, to }) => eb.between("position", from, to))))
      .orderBy("position");
  }

  #countOpen(mine: readonly number[]) {
    return this.#options.database.sql
      .selectFrom("outbox")
      .select((eb) => eb.fn.countAll<number | bigint | string>().as("count"))
      .where("publish_time", "is", null)
      .where("partition_no", "in", [...mine])
      .where("position", "<=", this.#cursor);
  }

  /** Forgets lanes that broke and partitions that are no longer ours. True: one broke. */
  #dropLanes(mine: readonly number[]): boolean {
    const dropped = [...this.#lanes].filter(([partition, lane]) => lane.broken || !mine.includes(partition));
    if (dropped.length === 0) return false;
    const broken = dropped.some(([, lane]) => lane.broken);
    for (const [partition, lane] of dropped) {
      lane.close();
      this.#lanes.delete(partition);
    }
    const confirmed = new Set(this.#confirmed);
    for (const [position, partition] of this.#underWay) {
      if (!this.#lanes.has(partition) && !confirmed.has(position)) this.#underWay.delete(position);
    }
    this.#cursor = 0;
    return broken;
  }

  #send(rows: readonly OpenRow[]): void {
    const fresh = rows.filter(({ position }) => !this.#underWay.has(position));
    for (const [partition, group] of Map.groupBy(fresh, (row) => row.partition_no)) {
      const lane = this.#lanes.get(partition) ?? this.#options.openLane(this.#options.database.service, partition);
      this.#lanes.set(partition, lane);
      // A lane that broke meanwhile stays until the next turn, which begins this partition anew.
      if (lane.broken) continue;
      for (const { position } of group) this.#underWay.set(position, partition);
      lane.send(group).then(
        () => {
          this.#failures = 0;
          for (const { position } of group) this.#confirmed.push(position);
          this.#markSoon();
        },
        () => this.nudge(),
      );
    }
  }

  #markSoon(): void {
    if (this.#confirmed.length >= MARK_SIZE) {
      this.#markDue = true;
      this.nudge();
    }
    this.#markTimer ??= setTimeout(() => {
      this.#markTimer = undefined;
      this.#markDue = true;
      this.nudge();
    }, MARK_MS);
  }

  /** The confirmed rows whose time has come. */
  #markable(): readonly number[] {
    return this.#markDue ? this.#confirmed.slice(0, MARK_SIZE) : [];
  }

  /** A lost mark publishes again, and the inbox drops the doubles. */
  #marking(positions: readonly number[]) {
    const { sql, clock } = this.#options.database;
    return sql.updateTable("outbox").set({ publish_time: clock.now() }).where("position", "in", positions);
  }

  #forget(marked: readonly number[]): void {
    if (marked.length === 0) return;
    this.#confirmed = this.#confirmed.slice(marked.length);
    for (const position of marked) this.#underWay.delete(position);
    this.#markDue = this.#confirmed.length >= MARK_SIZE;
    if (this.#confirmed.length > 0) this.#markSoon();
  }

  async #mark(): Promise<void> {
    const marked = this.#markable();
    if (marked.length > 0) {
      await this.#marking(marked).execute();
      this.#forget(marked);
    }
  }

  async #pause(ms: number): Promise<void> {
    if (this.#nudged || this.#stopped) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const timer = setTimeout(resolve, Math.max(1, ms));
    await promise;
    clearTimeout(timer);
    this.#wake = undefined;
  }
}
