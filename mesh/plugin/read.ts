import { type DescFile, type DescMethod, type DescService, getOption, hasOption } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import {
  type Door as DeclaredDoor,
  type Rate as DeclaredRate,
  door as doorOption,
  method as methodOption,
  service as serviceOption,
} from "#gen/marketplace/policy/v1/policy_pb.ts";
import { methodName, policyOf, policyProblems } from "#runtime/policy.ts";
import type { Contract, Door, Method, Rate, Service, Workload } from "./contract.ts";
import { commentOf, type Place, positionOf } from "./positions.ts";

const IDEMPOTENCY = 34;

/** Something declared that cannot be served, with where it is declared. */
export interface Problem {
  readonly position: string;
  readonly text: string;
}

/**
 * Reads all that the given files declare. Every problem is found, not only the first: the contract is of use only if there is none.
 *
 * @param callers workloads that call and implement no contract
 */
export function readContract(
  files: readonly DescFile[],
  callers: readonly string[] = [],
): { contract: Contract; problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const complain = (place: Place, option: { number: number; name: string }, text: string) =>
    problems.push({ position: positionOf(place, option.number), text: `${option.name}: ${text}` });
  const services: Service[] = [];
  for (const desc of files.flatMap((file) => file.services)) {
    const methods: DescMethod[] = [];
    for (const method of desc.methods) {
      const faults = policyProblems(method);
      if (faults.length === 0) methods.push(method);
      for (const text of faults) complain(method, optionAtFault(text), text);
    }
    services.push({
      name: desc.typeName,
      comment: commentOf(desc),
      workloads: workloadsOf(desc),
      methods: methods.map(readMethod),
    });
  }
  const doors = files.flatMap((file) => getOption(file, doorOption).map(readDoor));
  const contract = { services, workloads: assemble(services, doors, callers), doors };
  checkNames(files, contract, complain);
  return { contract, problems };
}

const POLICY = { number: methodOption.number, name: `(${methodOption.typeName})` };

function optionAtFault(text: string) {
  return /idempotency_level/.test(text) ? { number: IDEMPOTENCY, name: "idempotency_level" } : POLICY;
}

/** What policies of single methods cannot show: callers that do not exist, doors that stand in each other's way. */
function checkNames(
  files: readonly DescFile[],
  { workloads, doors }: Contract,
  complain: (place: Place, option: { number: number; name: string }, text: string) => void,
): void {
  const known = new Set(workloads.map(({ name }) => name));
  for (const method of files.flatMap((file) => file.services).flatMap((service) => service.methods)) {
    const callers = hasOption(method, methodOption) ? (getOption(method, methodOption).callers?.services ?? []) : [];
    for (const caller of callers.filter((name) => !known.has(name))) {
      complain(
        method,
        POLICY,
        `${methodName(method)} admits the service "${caller}", which no package names. A caller without a contract is named to the plugin: workload=${caller}.`,
      );
    }
  }
  const names = new Set<string>();
  for (const file of files) {
    for (const declared of getOption(file, doorOption)) {
      const option = { number: doorOption.number, name: `(${doorOption.typeName})` };
      const twin = doors.find((other) => other.name !== declared.name && other.path === declared.path);
      if (names.has(declared.name)) complain(file, option, `There are two doors named "${declared.name}".`);
      if (twin) complain(file, option, `The doors "${declared.name}" and "${twin.name}" have one path, ${declared.path}.`);
      if (declared.timeout === undefined) complain(file, option, `The door "${declared.name}" has no timeout.`);
      if (declared.httpMethods.length === 0) complain(file, option, `The door "${declared.name}" answers no HTTP method.`);
      if (!/^\/([\w.-]+\/)*$/.test(declared.path)) {
        complain(file, option, `The path "${declared.path}" of "${declared.name}" does not begin and end with a slash.`);
      }
      names.add(declared.name);
    }
  }
}

function readMethod(desc: DescMethod): Method {
  const declared = getOption(desc, methodOption);
  const policy = policyOf(desc);
  const budget = { p99Ms: ms(declared.budget?.p99Latency) ?? 0, availabilityPpm: declared.budget?.availabilityPpm ?? 0 };
  const attempts = Math.max(1, declared.maxAttempts);
  const stream = desc.methodKind !== "unary";
  return {
    name: methodName(desc),
    stream,
    http: desc.idempotency === Level.NO_SIDE_EFFECTS && !stream ? ["POST", "GET"] : ["POST"],
    idempotency: levelOf(desc),
    attempts,
    timeoutMs: policy.timeoutMs,
    maxStreamAgeMs: policy.maxStreamAgeMs,
    maxRequestBytes: policy.maxRequestBytes,
    access: {
      anyone: policy.anyone,
      account: policy.account,
      operator: policy.operator,
      services: [...policy.services].sort(),
    },
    rate: readRate(declared.rate),
    cacheControl: policy.cacheControl,
    budget,
    comment: commentOf(desc),
    input: desc.input.typeName,
    output: desc.output.typeName,
  };
}

function levelOf(desc: DescMethod): Method["idempotency"] {
  switch (desc.idempotency) {
    case Level.NO_SIDE_EFFECTS:
      return "NO_SIDE_EFFECTS";
    case Level.IDEMPOTENT:
      return "IDEMPOTENT";
    default:
      return "IDEMPOTENCY_UNKNOWN";
  }
}

function readRate(rate: DeclaredRate | undefined): Rate | undefined {
  return rate && { perMinute: rate.perMinute, burst: rate.burst || Math.max(1, Math.floor(rate.perMinute / 10)) };
}

function readDoor(declared: DeclaredDoor): Door {
  return {
    name: declared.name,
    workload: declared.workload,
    path: declared.path,
    http: declared.httpMethods,
    timeoutMs: ms(declared.timeout) ?? 0,
    rate: readRate(declared.rate),
    switch: declared.switch,
  };
}

function ms(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) * 1000 + duration.nanos / 1_000_000;
}

/** The option's, or the last part of the package that is no version: `cart` of `shop.cart.v1`. */
function workloadsOf(desc: DescService): readonly string[] {
  const { workloads } = getOption(desc, serviceOption);
  if (workloads.length > 0) return [...workloads].sort();
  const parts = desc.file.proto.package.split(".").filter((part) => !/^v\d/.test(part));
  return [parts.at(-1) ?? desc.name.toLowerCase()];
}

function assemble(services: readonly Service[], doors: readonly Door[], callers: readonly string[]): Workload[] {
  const methods = new Map<string, Method[]>();
  for (const { workloads, methods: own } of services) {
    for (const name of workloads) methods.set(name, [...(methods.get(name) ?? []), ...own]);
  }
  for (const name of [...doors.map(({ workload }) => workload), ...callers]) if (!methods.has(name)) methods.set(name, []);
  const callersOf = (name: string) => new Set((methods.get(name) ?? []).flatMap(({ access }) => access.services));
  const names = [...methods.keys()].sort();
  return names.map((name) => ({
    name,
    methods: methods.get(name) ?? [],
    calls: names.filter((other) => other !== name && callersOf(other).has(name)),
    calledBy: [...callersOf(name)].filter((other) => other !== name).sort(),
  }));
}
