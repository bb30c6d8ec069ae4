import { type DescMethod, type DescService, getOption, hasOption } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { type Policy, method as policyOption } from "#gen/marketplace/policy/v1/policy_pb.ts";

/** The largest request message in bytes where a policy says nothing. */
export const DEFAULT_MAX_REQUEST_BYTES = 65_536;
/** The largest request message in bytes that any policy may allow. */
export const MAX_REQUEST_BYTES = 4_194_304;

/** A method's policy as the process uses it: times in milliseconds, defaults filled in. */
export interface MethodPolicy {
  readonly anyone: boolean;
  readonly account: boolean;
  readonly operator: boolean;
  readonly services: ReadonlySet<string>;
  /** The longest a call takes, in ms; undefined on a stream, which has an age instead. */
  readonly timeoutMs: number | undefined;
  /** The longest a stream stays open, in ms. */
  readonly maxStreamAgeMs: number | undefined;
  /** How often a call may be tried in all. */
  readonly maxAttempts: number;
  readonly maxRequestBytes: number;
  /** The value of the `cache-control` header of an answer; undefined where nothing may be kept. */
  readonly cacheControl: string | undefined;
}

/** Why a method's declared policy cannot be served; empty when it can. */
export function policyProblems(method: DescMethod): string[] {
  const name = methodName(method);
  if (!hasOption(method, policyOption)) {
    return [`${name} declares no policy (marketplace.policy.v1.method).`];
  }
  const policy = getOption(method, policyOption);
  const problems: string[] = [];
  const { callers } = policy;
  if (!callers || !(callers.anyone || callers.account || callers.operator || callers.services.length > 0)) {
    problems.push(`${name} admits no caller.`);
  }
  const streams = method.methodKind !== "unary";
  if (policy.maxStreamAge !== undefined && !streams) {
    problems.push(`${name} is unary and declares max_stream_age.`);
  }
  if (policy.timeout === undefined && !(streams && policy.maxStreamAge !== undefined)) {
    problems.push(`${name} declares ${streams ? "neither a timeout nor max_stream_age" : "no timeout"}.`);
  }
  if (policy.budget === undefined) {
    problems.push(`${name} declares no budget.`);
  }
  problems.push(...boundProblems(name, policy));
  const level = method.idempotency;
  const sideEffectFree = level === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
  if (level === MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN && policy.maxAttempts > 1) {
    problems.push(`${name} may be tried ${policy.maxAttempts} times but declares no idempotency_level that allows it.`);
  }
  if (policy.cache !== undefined && !sideEffectFree) {
    problems.push(`${name} has side effects and declares a cache.`);
  }
  if (policy.cache?.shared === true && callers?.anyone !== true) {
    problems.push(`${name} lets shared caches keep an answer that not anyone may see.`);
  }
  return problems;
}

function boundProblems(name: string, policy: Policy): string[] {
  const problems: string[] = [];
  const timeoutMs = durationMs(policy.timeout);
  if (timeoutMs !== undefined && (timeoutMs < 1 || timeoutMs > 60_000)) {
    problems.push(`${name} has a timeout of ${timeoutMs} ms, outside 1 ms to 60 s.`);
  }
  const ageMs = durationMs(policy.maxStreamAge);
  if (ageMs !== undefined && (ageMs < 1000 || ageMs > 3_600_000)) {
    problems.push(`${name} has a max_stream_age of ${ageMs} ms, outside 1 s to 1 h.`);
  }
  if (policy.maxAttempts > 5) {
    problems.push(`${name} may be tried ${policy.maxAttempts} times; 5 is the most.`);
  }
  if (policy.maxRequestBytes > MAX_REQUEST_BYTES) {
    problems.push(`${name} takes ${policy.maxRequestBytes} bytes; ${MAX_REQUEST_BYTES} is the most.`);
  }
  return problems;
}

/** Reads a method's policy. Throws with every problem named when it cannot be served. */
export function policyOf(method: DescMethod): MethodPolicy {
  const problems = policyProblems(method);
  if (problems.length > 0) {
    throw new Error(problems.join("\n"));
  }
  const policy = getOption(method, policyOption);
  return {
    anyone: policy.callers?.anyone ?? false,
    account: policy.callers?.account ?? false,
    operator: policy.callers?.operator ?? false,
    services: new Set(policy.callers?.services),
    timeoutMs: durationMs(policy.timeout),
    maxStreamAgeMs: durationMs(policy.maxStreamAge),
    maxAttempts: policy.maxAttempts || 1,
    maxRequestBytes: policy.maxRequestBytes || DEFAULT_MAX_REQUEST_BYTES,
    cacheControl: cacheControlOf(policy),
  };
}

/** Reads the policies of all methods of some services at once. Throws with the problems of all of them. */
export function readPolicies(services: Iterable<DescService>): ReadonlyMap<DescMethod, MethodPolicy> {
  const methods = [...services].flatMap((service) => service.methods);
  const problems = methods.flatMap(policyProblems);
  if (problems.length > 0) {
    throw new Error(`Policies refused:\n${problems.join("\n")}`);
  }
  return new Map(methods.map((method) => [method, policyOf(method)]));
}

/** A method's full name, such as `marketplace.order.v1.OrderService/PlaceOrder`. */
export function methodName(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function cacheControlOf(policy: Policy): string | undefined {
  const maxAgeMs = durationMs(policy.cache?.maxAge);
  if (policy.cache === undefined || maxAgeMs === undefined) {
    return undefined;
  }
  return `${policy.cache.shared ? "public" : "private"}, max-age=${Math.floor(maxAgeMs / 1000)}`;
}

function durationMs(duration: Duration | undefined): number | undefined {
  return duration && Number(duration.seconds) * 1000 + duration.nanos / 1_000_000;
}
