// `npm run token`: signs a token for a demo account, or for any account by its id.

import { parseArgs } from "node:util";
import { DEFAULT_URL, runTool, tokenFor, UsageError } from "./identity.ts";
import { accounts } from "./seed/listings.ts";

const HELP = `npm run -s token -- --as NAME [--minutes N]

Prints a token of the embedded marketplace for a demo account, or for any account by its id:

${accounts.map((each) => `  ${each.name.padEnd(6)} ${each.role.padEnd(8)} ${each.accountId}  ${each.displayName}`).join("\n")}

Options
  --as NAME      the account's name or id
  --minutes N    how long the token lives, 1 to 1440 (60)

Send it as "Authorization: Bearer …". The key is in .souk/keys, or in the folder that SOUK_DATA_DIR names.`;

await runTool(DEFAULT_URL, async () => {
  const { values } = parse();
  if (values.help) return console.log(HELP);
  if (values.as === undefined) throw new UsageError(`Whose token? npm run -s token -- --as ada\n\n${HELP}`);
  const minutes = Number(values.minutes ?? 60);
  if (!Number.isInteger(minutes) || minutes < 1 || minutes > 1440) {
    throw new UsageError(`--minutes must be a whole number from 1 to 1440, not "${values.minutes}".`);
  }
  console.log(await tokenFor(values.as, minutes * 60_000));
});

function parse() {
  try {
    return parseArgs({
      options: { as: { type: "string" }, minutes: { type: "string" }, help: { type: "boolean", short: "h" } },
    });
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n\n${HELP}`);
  }
}
