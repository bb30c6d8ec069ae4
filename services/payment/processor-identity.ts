import { isUniqueViolation } from "#runtime/database/errors.ts";
import type { PaymentDatabase } from "./entities.ts";

/** Where a processor's books are: the simulator's file, or the address of one outside. */
export type ProcessorPlace = { readonly file: string } | { readonly url: string };

/**
 * Notes which processor the payments of this database are with, at the first start with it. Each payment is known to one processor only: with another one's
 * books captures would be repeated and refunds refused.
 *
 * @throws Error a sentence, when they are with another one: for the simulator that is another file of books.
 */
export async function keepProcessor(database: PaymentDatabase, processorId: string, place: ProcessorPlace): Promise<void> {
  const { sql } = database;
  const read = () => sql.selectFrom("processor_identity").select("processor_id").where("only_row", "=", 1).executeTakeFirst();
  if ((await read()) === undefined) {
    const row = { only_row: 1, processor_id: processorId };
    await sql
      .insertInto("processor_identity")
      .values(row)
      .execute()
      .catch((error: unknown) => {
        // Another process has just noted its own.
        if (!isUniqueViolation(error)) throw error;
      });
  }
  if ((await read())?.processor_id === processorId) return;
  throw new Error(
    "file" in place
      ? `The payments in this database are with another simulated processor than the one in ${place.file}. All processes with payment share one file of books: name it in SOUK_SIMULATOR_FILE, or restore it from the backup.`
      : `The payments in this database are with another processor than the one at ${place.url}, which calls itself ${processorId}. Name the one they began with in SOUK_PROCESSOR.`,
  );
}
