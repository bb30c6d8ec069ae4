// The marketplace, but its clock is ahead by the first argument in milliseconds: what a dead predecessor held for a while has run out.
import { readConfig } from "#runtime/config.ts";
import { run, SERVICES } from "../../services/main.ts";

const [aheadMs, ...argv] = process.argv.slice(2);
const settings = readConfig({ argv, env: process.env, services: SERVICES });
if ("help" in settings) throw new Error("this program has no help.");
const { url } = await run(settings.config, { clock: { now: () => Date.now() + Number(aheadMs) } });
process.stdout.write(`Souk listens on ${url}, its clock ${aheadMs} ms ahead.\n`);
