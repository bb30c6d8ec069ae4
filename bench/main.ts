// `npm run bench`: what things cost, measured in pairs and interleaved in one run.

import { parseArgs } from "node:util";
import { runCommand, Usage } from "../tools/checks/usage.ts";

/** One benchmark: what it measures, and the rounds it takes unless told. */
interface Bench {
  readonly measures: string;
  readonly rounds: number;
  run(options: { rounds: number }): Promise<void>;
}

const ROUNDS_MAX = 50;

/** Loaded when they are run: none waits for what another one needs. */
const BENCHES: Readonly<Record<string, Bench>> = {
  calls: {
    measures: "GetListing, SearchListings and PlaceOrder on the embedded defaults, against a bare node:http server",
    rounds: 7,
    run: async (options) => (await import("./calls.ts")).calls(options),
  },
  client: {
    measures: "what a call costs the process that makes it, against bare grpc-js and connect-node",
    rounds: 11,
    run: async (options) => (await import("./client.ts")).client(options),
  },
  stores: {
    measures: "reads of listings from MariaDB and from the cache, against bare mysql2",
    rounds: 15,
    run: async (options) => (await import("./stores.ts")).stores(options),
  },
  rpc: {
    measures: "a unary call by protocol against grpc-js, connect-node and grpc-go, calls in memory against the network",
    rounds: 15,
    run: async (options) => (await import("./rpc.ts")).rpc(options),
  },
  "hot-unit": {
    measures: "decisions a second on one hot unit, against an entity read with FOR UPDATE",
    rounds: 7,
    run: async (options) => (await import("./hot-unit.ts")).hotUnit(options),
  },
  purchase: {
    measures: "PlaceOrder on MariaDB and Redis with all it causes, against node:http with one transaction of six statements",
    rounds: 5,
    run: async (options) => (await import("./purchase.ts")).purchase(options),
  },
  "purchase-page": {
    measures: "nothing: lists the statements of PlaceOrder anew in docs/performance.md",
    rounds: 1,
    run: async () => (await import("./purchase-statements.ts")).purchasePage(),
  },
  events: {
    measures: "from commit to applied at 1,000 events a second, and events a second from a backlog, on MariaDB and Redis",
    rounds: 3,
    run: async (options) => (await import("./events.ts")).events(options),
  },
};

const HELP = `npm run bench -- [NAME] [--rounds N]

Each prints processor time per operation beside wall time, and the ratio to its peer of the same round; figures are medians of the rounds.

${Object.entries(BENCHES)
  .map(([name, { measures, rounds }]) => `  ${name.padEnd(12)} ${measures} (${rounds} rounds)`)
  .join("\n")}

  --rounds N   rounds, 1 to ${ROUNDS_MAX}; calls is run where no name is given`;

async function main(args: string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    options: { rounds: { type: "string" }, help: { type: "boolean" } },
    allowPositionals: true,
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const [name = "calls", ...more] = positionals;
  const bench = BENCHES[name];
  if (bench === undefined || more.length > 0) {
    throw new Usage(`There is no benchmark "${positionals.join(" ")}", only ${Object.keys(BENCHES).join(", ")}.`);
  }
  const rounds = Number(values.rounds ?? bench.rounds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > ROUNDS_MAX) {
    throw new Usage(`--rounds must be a whole number from 1 to ${ROUNDS_MAX}, not "${values.rounds}".`);
  }
  await bench.run({ rounds });
}

await runCommand("npm run bench", () => main(process.argv.slice(2)));
