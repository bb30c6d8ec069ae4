// `npm start`: the whole marketplace on the embedded defaults, or on private production stores, with something to sell and somebody to be.

import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createClient, type Interceptor } from "@connectrpc/connect";
import type { Config } from "#runtime/config.ts";
import { signAccountToken } from "#runtime/tokens.ts";
import { main, namedStores, type OpenStores, type Running, SERVICES } from "../services/main.ts";
import { accounts, type DemoAccount } from "./seed/listings.ts";
import { seed } from "./seed/seed.ts";
import { KEPT_FOLDER, startKept } from "./stores/kept.ts";

/** Remembers that the demo catalogue is in: what was withdrawn or sold since does not come back. */
const SEEDED_FILE = "seeded";

async function seedOnce({ marketplace, keys }: Running, { dataDir, seed: wanted, services }: Config): Promise<string> {
  const file = path.join(dataDir, SEEDED_FILE);
  // One process of several starts before the others answer.
  if (!wanted || existsSync(file) || services.length < SERVICES.length) return "";
  const { accounts: key } = keys;
  if (key === undefined) return "No demo accounts and listings: who signs in is the provider's matter. ";
  const signedIn =
    (account: DemoAccount): Interceptor =>
    (next) =>
    async (request) => {
      request.header.set("authorization", `Bearer ${await signAccountToken({ accounts: key }, account)}`);
      return next(request);
    };
  const seeded = await seed((account, service) =>
    createClient(service, marketplace.directory.transport(service, undefined, [signedIn(account)])),
  );
  writeFileSync(file, `${new Date().toISOString()}\n`);
  return `Put in ${seeded.accounts} demo accounts and ${seeded.listings} listings. `;
}

function welcome(url: string, dataDir: string, seeded: string): string {
  const names = (role: DemoAccount["role"]) =>
    accounts
      .filter((each) => each.role === role)
      .map((each) => each.name)
      .join(", ");
  const rpc = (path: string) => `curl -s ${url}/marketplace.${path} -H 'Content-Type: application/json'`;
  const token = (name: string) => `-H "Authorization: Bearer $(npm run -s token -- --as ${name})"`;
  return `
Souk listens on ${url}, ready ${(performance.now() / 1000).toFixed(1)} s after its start. ${seeded}Ctrl-C ends it.
Data is in ${dataDir}; npm run reset forgets it.

Demo accounts   sellers ${names("seller")}; buyers ${names("buyer")}; operator ${names("operator")}
A token         npm run -s token -- --as ben

Try, in another terminal:

${rpc("search.v1.SearchService/SearchListings")} -d '{"query": "road bike"}'
${rpc("account.v1.AccountService/GetProfile")} ${token("ada")} -d '{}'
${rpc("ops.v1.OpsService/CheckBooks")} ${token("olga")} -d '{}'

A whole purchase is in README.md.
`;
}

/** The stores that the settings name, else private ones whose data is in the data folder. */
function storesOf(config: Config): Promise<OpenStores> {
  return config.databaseUrl === undefined ? startKept(path.join(config.dataDir, KEPT_FOLDER), SERVICES) : namedStores(config);
}

await main(
  process.argv.slice(2),
  async (running, config) => {
    const seeded = await seedOnce(running, config);
    process.stdout.write(welcome(running.url.replace("127.0.0.1", "localhost"), config.dataDir, seeded));
  },
  storesOf,
);
