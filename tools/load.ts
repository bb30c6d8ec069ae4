// `npm run load`: people at a marketplace, as many as are asked for, and whether what the contract promises holds.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { newId } from "#runtime/ids.ts";
import { Usage } from "./checks/usage.ts";
import { DEFAULT_URL, tokenFor, UsageError, urlOf } from "./identity.ts";
import { Progress } from "./import/progress.ts";
import { type Actor, BOUNDS, checkHost, FLOWS, type FlowName, type LoadPlan, PROTOCOLS } from "./load/plan.ts";
import { type LoadReport, printed, reportOf } from "./load/report.ts";
import { runInWorkers, WorkerFailed } from "./load/workers.ts";

const HELP = `npm run load -- [options]

Lets people arrive at a marketplace and weighs every method against its promises in the contract (p99_latency, availability_ppm). They arrive by a
schedule, whatever becomes of those before them, and a call's duration counts from when it should have begun: a server that stalls cannot hide it.

What arrives, a second
  --browse N          searches, opens a result, and reads the page's listings (20)
  --sell N            creates a listing and publishes it (2)
  --buy N             places an order, the seller ships, the buyer confirms (2)
  --watch N           the same with the buyer's page open: WatchOrder shows each state (1)

How long and how
  --duration S        seconds at the full rates, which are measured (30)
  --ramp S            seconds before, in which the rates rise (5)
  --arrivals SHAPE    poisson: as independent people; constant: evenly (poisson)
  --protocol NAME     ${PROTOCOLS.join(", ")} (grpc)
  --no-retries        calls are sent once; over grpc they are tried as often as their policy allows otherwise
  --connections N     connections of each process (4)
  --workers N         processes that share the load (1)
  --in-flight N       people under way at once; who comes then is turned away, which is a miss (2000)
  --seed N            decides who does what when (by chance)

Where and as whom
  --url URL           the marketplace (${DEFAULT_URL})
  --authority HOST    the host it serves, where the URL is a gateway's address; over grpc
  --token-file FILE   accounts to act as, one token a line, at least two a process: every other one sells. Without it new accounts
                      are made up and signed by the local key, as by npm run token
  --allow-host NAME   the host's name once more, where it is neither this machine nor on a private network

What comes out
  --json FILE         the report as JSON as well; - for standard output, instead of the text
  --help              this

Makes listings, addresses and orders that stay. Ctrl-C ends the arrivals and reports; a second one ends at once.
Exit code 0: all promises are kept; 1: one is missed; 2: nothing could be measured.`;

const options = {
  browse: { type: "string", default: "20" },
  sell: { type: "string", default: "2" },
  buy: { type: "string", default: "2" },
  watch: { type: "string", default: "1" },
  duration: { type: "string", default: "30" },
  ramp: { type: "string", default: "5" },
  arrivals: { type: "string", default: "poisson" },
  protocol: { type: "string", default: "grpc" },
  "no-retries": { type: "boolean", default: false },
  connections: { type: "string", default: "4" },
  workers: { type: "string", default: "1" },
  "in-flight": { type: "string", default: "2000" },
  seed: { type: "string" },
  url: { type: "string", default: DEFAULT_URL },
  authority: { type: "string" },
  "token-file": { type: "string" },
  "allow-host": { type: "string" },
  json: { type: "string" },
  help: { type: "boolean", short: "h", default: false },
} as const;

/** A load as the arguments say it, before its accounts are there. */
interface Settings {
  readonly plan: Omit<LoadPlan, "sellers" | "buyers">;
  readonly workers: number;
  readonly tokenFile: string | undefined;
  readonly json: string | undefined;
}

function readSettings(args: readonly string[]): Settings | undefined {
  const { values } = parseArgs({ args: [...args], options });
  if (values.help) return undefined;
  const within = (name: keyof typeof values, min: number, max: number, whole: boolean) => {
    const text = String(values[name]);
    const value = Number(text);
    if (!/^\d+(\.\d+)?$/.test(text) || value < min || value > max || (whole && !Number.isInteger(value))) {
      throw new Usage(`--${name} is a ${whole ? "whole number" : "number"} from ${min} to ${max}, not "${text}"`);
    }
    return value;
  };
  const oneOf = <T extends string>(name: "arrivals" | "protocol", known: readonly T[]): T => {
    const found = known.find((each) => each === values[name]);
    if (found === undefined) throw new Usage(`--${name} is ${known.join(" or ")}, not "${values[name]}"`);
    return found;
  };
  const rates = Object.fromEntries(FLOWS.map((flow) => [flow, within(flow, 0, BOUNDS.perSecond, false)])) as Record<
    FlowName,
    number
  >;
  if (FLOWS.every((flow) => rates[flow] === 0)) throw new Usage("nobody arrives: give one of the rates");
  const url = urlOf(values.url);
  checkHost(url, values["allow-host"]);
  const protocol = oneOf("protocol", PROTOCOLS);
  const { authority } = values;
  if (authority !== undefined && protocol !== "grpc") throw new Usage("--authority goes with --protocol grpc");
  return {
    plan: {
      url,
      authority,
      protocol,
      rates,
      shape: oneOf("arrivals", ["poisson", "constant"]),
      rampMs: within("ramp", 0, BOUNDS.seconds, false) * 1000,
      durationMs: within("duration", 1, BOUNDS.seconds, false) * 1000,
      connections: within("connections", 1, BOUNDS.connections, true),
      inFlightMax: within("in-flight", 1, BOUNDS.inFlight, true),
      retries: !values["no-retries"],
      seed: values.seed === undefined ? Math.floor(Math.random() * 1_000_000) : within("seed", 0, 0xffff_ffff, true),
    },
    workers: within("workers", 1, BOUNDS.workers, true),
    tokenFile: values["token-file"],
    json: values.json,
  };
}

/** Who acts: enough accounts that none of them needs more than a person would. */
async function actorsOf({ plan, workers, tokenFile }: Settings): Promise<Pick<LoadPlan, "sellers" | "buyers">> {
  if (tokenFile !== undefined) return actorsIn(tokenFile, workers);
  const { rates, rampMs, durationMs } = plan;
  const ttlMs = rampMs + durationMs + 10 * 60_000;
  const orders = rates.buy + rates.watch;
  const made = async (wanted: number): Promise<Actor[]> => {
    const accountIds = Array.from({ length: Math.min(BOUNDS.accounts, Math.max(2 * workers, Math.ceil(wanted))) }, () => newId());
    return Promise.all(accountIds.map(async (accountId) => ({ accountId, token: await tokenFor(accountId, ttlMs) })));
  };
  return { sellers: await made(rates.sell + orders / 2), buyers: await made(2 * orders) };
}

function actorsIn(file: string, workers: number): Pick<LoadPlan, "sellers" | "buyers"> {
  if (!existsSync(file)) throw new Usage(`there is no file ${file}`);
  const tokens = readFileSync(file, "utf8").split(/\s+/).filter(Boolean);
  const accounts = tokens.map((token) => ({ accountId: accountIn(token), token }));
  const sellers = accounts.filter((_, index) => index % 2 === 0);
  const buyers = accounts.filter((_, index) => index % 2 === 1);
  if (buyers.length < workers) throw new Usage(`${file} has ${tokens.length} tokens; each of ${workers} processes needs two`);
  return { sellers, buyers };
}

function accountIn(token: string): string {
  try {
    const { sub } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { sub?: unknown };
    if (typeof sub === "string") return sub;
  } catch {}
  throw new Usage("a line of the token file is not a token");
}

async function measure(settings: Settings): Promise<LoadReport> {
  const plan: LoadPlan = { ...settings.plan, ...(await actorsOf(settings)) };
  const { workers } = settings;
  const stopping = new AbortController();
  const progress = new Progress();
  const onInterrupt = () => {
    if (stopping.signal.aborted) process.exit(130);
    progress.tell("Ending: nobody arrives any more; what is under way may finish. A second Ctrl-C ends at once.");
    stopping.abort();
  };
  process.on("SIGINT", onInterrupt);
  process.on("SIGTERM", onInterrupt);
  let beginTime: number | undefined;
  progress.tell(`Putting on sale what will be bought at ${plan.url} …`);
  try {
    const figures = await runInWorkers(plan, {
      workers,
      signal: stopping.signal,
      onBegin: () => {
        beginTime = performance.now();
      },
      onProgress({ arrived, finished, failed, inFlight }) {
        if (beginTime === undefined) return;
        const part = (performance.now() - beginTime) / (plan.rampMs + plan.durationMs);
        progress.show(part, `${arrived} arrived, ${finished} finished, ${failed} failed, ${inFlight} under way`);
      },
    });
    return reportOf(plan, figures, { workers, interrupted: stopping.signal.aborted });
  } finally {
    progress.end();
    process.off("SIGINT", onInterrupt);
    process.off("SIGTERM", onInterrupt);
  }
}

try {
  const settings = readSettings(process.argv.slice(2));
  if (settings === undefined) console.log(HELP);
  else {
    const report = await measure(settings);
    const json = `${JSON.stringify(report, undefined, 2)}\n`;
    if (settings.json === "-") process.stdout.write(json);
    else {
      process.stdout.write(printed(report));
      if (settings.json !== undefined) writeFileSync(settings.json, json);
    }
    process.exitCode = report.missed.length === 0 ? 0 : 1;
  }
} catch (error) {
  process.exitCode = 2;
  const parsing = error instanceof TypeError && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS");
  if (error instanceof Usage || error instanceof UsageError || parsing) {
    console.error(`${(error as Error).message}\nnpm run load -- --help lists the options`);
  } else if (error instanceof WorkerFailed) {
    const start = error.reason === "UNAVAILABLE" ? " Start a marketplace with npm start, or name another with --url." : "";
    console.error(`The load could not run: ${error.message}${start}`);
  } else console.error(error);
}
