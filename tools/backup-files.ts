// `npm run backup-files`: copies what of the data folder belongs in a backup, beside the dump of the databases.

import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { dataDir } from "./identity.ts";

const HELP = `npm run -s backup-files -- FOLDER

Copies the keys and the payment simulator's books from .souk/, or what SOUK_DATA_DIR, SOUK_KEYS_DIR and SOUK_SIMULATOR_FILE name, into FOLDER, which
must not exist or be empty. The marketplace may run meanwhile. The databases are backed up by mariadb-dump, before this: see docs/operations.md.`;

const BUSY_MS = 10_000;

/** Copies the keys, and the simulator's books in one instant. Gives what was copied, or a sentence that says why nothing was. */
function backUpFiles(keys: string, books: string, to: string): { copied: string[] } | { problem: string } {
  if (!existsSync(keys)) {
    return { problem: `There are no keys in ${keys}: SOUK_DATA_DIR must name the folder of a marketplace that has been started.` };
  }
  if (existsSync(to) && readdirSync(to).length > 0) return { problem: `${to} is not empty, and a backup replaces nothing.` };
  mkdirSync(to, { recursive: true, mode: 0o700 });
  cpSync(keys, path.join(to, "keys"), { recursive: true, preserveTimestamps: true });
  if (!existsSync(books)) return { copied: [keys] };
  // A plain copy would lack what is still in the log beside the file.
  const database = new DatabaseSync(books, { timeout: BUSY_MS });
  try {
    database.prepare("vacuum into ?").run(path.join(to, "processor.db"));
  } finally {
    database.close();
  }
  chmodSync(path.join(to, "processor.db"), 0o600);
  return { copied: [keys, books] };
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  const [folder = ""] = args;
  if (args.includes("--help")) console.log(HELP);
  else if (args.length !== 1 || folder === "" || folder.startsWith("-")) {
    console.error("npm run -s backup-files -- FOLDER needs the name of one folder; --help says what it does.");
    process.exitCode = 2;
  } else {
    const keys = path.resolve(process.env.SOUK_KEYS_DIR || path.join(dataDir(), "keys"));
    const books = path.resolve(process.env.SOUK_SIMULATOR_FILE || path.join(dataDir(), "processor.db"));
    const done = backUpFiles(keys, books, path.resolve(folder));
    if ("problem" in done) {
      console.error(done.problem);
      process.exitCode = 1;
    } else console.log(`Copied ${done.copied.join(" and ")} into ${folder}.`);
  }
}
