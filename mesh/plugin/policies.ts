import { type Contract, type Door, isExposed, type Method, type Rate } from "./contract.ts";

/** What the chart's templates read: every workload with its methods, every door. Times are in milliseconds. */
export function policies({ workloads, doors }: Contract) {
  return {
    workloads: workloads.map(({ name, methods, calls, calledBy }) => ({
      name,
      calls,
      calledBy,
      exposed: methods.some(isExposed) || doors.some(({ workload }) => workload === name),
      methods: methods.map(policy),
    })),
    doors: doors.map(door),
  };
}

function policy(method: Method) {
  const { name, stream, http, attempts, timeoutMs, access, rate, budget } = method;
  return {
    name,
    http,
    stream,
    // A stream has none: a route's timeout would bound its whole answer.
    timeoutMs: timeoutMs ?? 0,
    attempts,
    // One of several attempts gets its share of the whole, but no less than this: otherwise attempts would be given up on slow days just before they
    // succeed, and make them slower.
    minPerTryMs: Math.min(2 * budget.p99Ms, timeoutMs ?? 0),
    exposed: isExposed(method),
    access,
    ...(rate === undefined ? {} : { rate: bucket(rate) }),
  };
}

function door({ name, workload, path, http, timeoutMs, rate, switch: gate }: Door) {
  return { name, workload, path, http, timeoutMs, switch: gate, ...(rate === undefined ? {} : { rate: bucket(rate) }) };
}

function bucket({ perMinute, burst }: Rate) {
  return { perMinute, burst };
}
