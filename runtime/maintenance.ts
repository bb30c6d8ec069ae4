import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { DeadLetterKind, DeadLetterSchema, JobSchema, type MaintenanceService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { accountIfAny, callOf } from "#runtime/call.ts";
import type { Database } from "#runtime/database/database.ts";
import { type DeadLetter, discardDeadLetter, listDeadLetters, retryDeadLetter } from "#runtime/database/dead-letters.ts";
import { afterPosition, cutPage, type PageTokens, pageSizeOf } from "#runtime/pages.ts";

const PAGE = { standard: 20, max: 100 };
/** As the index job_due has them: behind the due time stands the primary key. */
const JOB_ORDER = [
  { column: "due_time", direction: "asc" },
  { column: "job_key", direction: "asc" },
  { column: "kind", direction: "asc" },
] as const;

/** What every service with tables answers the ops service about itself: its dead letters and its jobs. */
export function maintenance(database: Database, pages: PageTokens): ServiceImpl<typeof MaintenanceService> {
  return {
    async listOwnDeadLetters(request, { method }) {
      const size = pageSizeOf(request, PAGE);
      const [after] = pages.decode(method, request) ?? [];
      const letters = await listDeadLetters(database.sql, {
        limit: size + 1,
        ...(after !== undefined && { after: String(after) }),
      });
      const page = cutPage(letters, size, (last) => pages.encode(method, request, [last.deadLetterId]));
      return { deadLetters: page.rows.map((row) => toMessage(row, database.service)), nextPageToken: page.nextPageToken };
    },

    retryOwnDeadLetter: (request, context) =>
      database.command(request, context, async (tx) => {
        await retryDeadLetter(tx, request.deadLetterId, accountIfAny(callOf(context)) ?? "ops");
        return {};
      }),

    discardOwnDeadLetter: (request, context) =>
      database.command(request, context, async (tx) => {
        await discardDeadLetter(tx, request.deadLetterId, request.operatorId, request.note);
        return {};
      }),

    async listOwnJobs(request, { method }) {
      const size = pageSizeOf(request, PAGE);
      const position = pages.decode(method, request);
      const rows = await database.sql
        .selectFrom("job")
        .selectAll()
        .where("due_time", "is not", null)
        .$narrowType<{ due_time: number }>()
        .$if(position !== undefined, (query) => query.where((eb) => afterPosition(eb, JOB_ORDER, position ?? [])))
        .orderBy("due_time")
        .orderBy("job_key")
        .orderBy("kind")
        .limit(size + 1)
        .execute();
      const page = cutPage(rows, size, (last) => pages.encode(method, request, [last.due_time, last.job_key, last.kind]));
      const now = database.clock.now();
      const jobs = page.rows.map((row) =>
        create(JobSchema, {
          kind: row.kind,
          key: row.job_key,
          dueTime: timestampFromMs(row.due_time),
          attempts: row.attempt,
          running: row.owner !== null && (row.lease_expire_time ?? 0) > now,
          lastError: row.last_message ?? "",
        }),
      );
      return { jobs, nextPageToken: page.nextPageToken };
    },
  };
}

function toMessage(letter: DeadLetter, service: string) {
  return create(DeadLetterSchema, {
    deadLetterId: letter.deadLetterId,
    service,
    kind: letter.kind === "event" ? DeadLetterKind.EVENT : DeadLetterKind.JOB,
    handler: letter.handler,
    // The type of the event's aggregate is known by the event's.
    subject: letter.kind === "event" ? letter.subject.slice(letter.subject.indexOf("/") + 1) : letter.subject,
    event: letter.kind === "event" ? `${letter.eventType} ${letter.eventId}` : "",
    attempts: letter.attempts,
    reason: letter.reason,
    message: letter.message,
    firstAttemptTime: timestampFromMs(letter.firstAttemptTime),
    lastAttemptTime: timestampFromMs(letter.lastAttemptTime),
  });
}
