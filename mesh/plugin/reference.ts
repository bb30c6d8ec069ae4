import type { Access, Contract, Door, Method, Rate, Service } from "./contract.ts";

/** The API's reference: every method with what its policy promises and bounds. */
export function reference({ services, doors }: Contract): string {
  const lines = [
    "# API reference",
    "",
    "<!-- Made from the proto by mesh/plugin: npm run generate. -->",
    "",
    "Every method is called at `/<package>.<Service>/<Method>` with POST, over Connect, gRPC or gRPC-Web, as JSON or protobuf; those marked GET also",
    "with Connect's GET. The messages' fields stand in the proto files. *Attempts* is how often a call may be tried in all, by the mesh or by a client",
    "outside it.",
    "",
    ...services.map(({ name }) => `- [${name}](#${anchor(name)})`),
    ...services.flatMap(section),
    ...(doors.length > 0 ? ["", "## Doors that are not RPCs", "", ...table(DOOR_COLUMNS, doors)] : []),
  ];
  return `${lines.join("\n")}\n`;
}

function section({ name, comment, workloads, methods }: Service): string[] {
  const where = workloads.length > 1 ? ["", `Implemented by ${workloads.join(", ")}, each for itself.`] : [];
  return ["", `## ${name}`, "", flow(comment), ...where, "", ...table(METHOD_COLUMNS, methods), ...methods.flatMap(described)];
}

function described({ name, comment, input, output, stream }: Method): string[] {
  const types = `\`${shortName(input)}\` → ${stream ? "stream of " : ""}\`${shortName(output)}\``;
  return ["", `**${name.split("/")[1]}** ${types}`, "", flow(comment)];
}

type Columns<T> = Readonly<Record<string, (row: T) => string>>;

const METHOD_COLUMNS: Columns<Method> = {
  method: ({ name, http }) => `\`${name.split("/")[1]}\`${http.includes("GET") ? " GET" : ""}`,
  "who may call": ({ access }) => callers(access),
  timeout: ({ timeoutMs, maxStreamAgeMs }) => (timeoutMs === undefined ? `stream, ${seconds(maxStreamAgeMs)}` : seconds(timeoutMs)),
  attempts: ({ attempts }) => String(attempts),
  "largest request": ({ maxRequestBytes }) => `${Math.round(maxRequestBytes / 1024)} KiB`,
  "may be kept": ({ cacheControl }) => cacheControl ?? "",
  rate: ({ rate }) => rateOf(rate),
  p99: ({ budget }) => seconds(budget.p99Ms),
  availability: ({ budget }) => `${budget.availabilityPpm / 10_000} %`,
};

const DOOR_COLUMNS: Columns<Door> = {
  door: ({ name }) => name,
  path: ({ path }) => `\`${path}\``,
  methods: ({ http }) => http.join(", "),
  "answered by": ({ workload }) => workload,
  timeout: ({ timeoutMs }) => seconds(timeoutMs),
  rate: ({ rate }) => rateOf(rate),
  "open with": ({ switch: gate }) => gate,
};

function table<T>(columns: Columns<T>, rows: readonly T[]): string[] {
  const names = Object.keys(columns);
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    line(names),
    `|${"---|".repeat(names.length)}`,
    ...rows.map((row) => line(Object.values(columns).map((cell) => cell(row)))),
  ];
}

function callers({ anyone, account, operator, services }: Access): string {
  const outside = anyone ? ["anyone"] : [...(account ? ["account"] : []), ...(operator ? ["operator"] : [])];
  return [...outside, ...services.map((name) => `service ${name}`)].join(", ");
}

function rateOf(rate: Rate | undefined): string {
  return rate === undefined ? "" : `${rate.perMinute}/min, ${rate.burst} at once`;
}

function seconds(ms: number | undefined): string {
  return ms === undefined ? "" : ms < 1000 ? `${ms} ms` : `${ms / 1000} s`;
}

function shortName(type: string): string {
  return type.split(".").at(-1) ?? type;
}

/** A comment's lines as one paragraph. */
function flow(comment: string): string {
  return comment.replace(/\n(?=\S)/g, " ");
}

function anchor(heading: string): string {
  return heading.toLowerCase().replace(/[^a-z0-9 -]/g, "");
}
