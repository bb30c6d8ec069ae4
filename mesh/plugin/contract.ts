/** Who a method admits: (from outside, anyone, an account or an operator) or (one of the named workloads). */
export interface Access {
  readonly anyone: boolean;
  readonly account: boolean;
  readonly operator: boolean;
  readonly services: readonly string[];
}

/** A token bucket: calls a minute in the long run, and at once. */
export interface Rate {
  readonly perMinute: number;
  readonly burst: number;
}

/** What is promised of a method, over 28 days. */
export interface Budget {
  readonly p99Ms: number;
  /** The part of calls that must not fail by our fault, in parts of a million. */
  readonly availabilityPpm: number;
}

/** One RPC as the mesh sees it. */
export interface Method {
  /** Such as `shop.cart.v1.CartService/GetCart`; its path with a slash before it. */
  readonly name: string;
  readonly stream: boolean;
  /** HTTP methods by which it is called: GET too where there are no side effects and no stream. */
  readonly http: readonly ("POST" | "GET")[];
  readonly idempotency: "NO_SIDE_EFFECTS" | "IDEMPOTENT" | "IDEMPOTENCY_UNKNOWN";
  /** In all, the first one included. */
  readonly attempts: number;
  /** Undefined on a stream, which has a maximum age instead. */
  readonly timeoutMs: number | undefined;
  readonly maxStreamAgeMs: number | undefined;
  readonly maxRequestBytes: number;
  readonly access: Access;
  readonly rate: Rate | undefined;
  /** The value of `cache-control` of an answer to anybody; undefined where nothing may be kept. */
  readonly cacheControl: string | undefined;
  readonly budget: Budget;
  /** The comment in the proto, and the names of what it takes and answers. */
  readonly comment: string;
  readonly input: string;
  readonly output: string;
}

/** A service of the contract, and the workloads that implement it. */
export interface Service {
  readonly name: string;
  readonly comment: string;
  readonly workloads: readonly string[];
  readonly methods: readonly Method[];
}

/** A door that is not an RPC. */
export interface Door {
  readonly name: string;
  readonly workload: string;
  readonly path: string;
  readonly http: readonly string[];
  readonly timeoutMs: number;
  readonly rate: Rate | undefined;
  /** The switch of an installation without which it stays shut; empty is always open. */
  readonly switch: string;
}

/** What runs as one Deployment under one identity. */
export interface Workload {
  readonly name: string;
  readonly methods: readonly Method[];
  /** The workloads it calls, and those that call it. */
  readonly calls: readonly string[];
  readonly calledBy: readonly string[];
}

/** All that is declared in a set of protos. */
export interface Contract {
  readonly services: readonly Service[];
  readonly workloads: readonly Workload[];
  readonly doors: readonly Door[];
}

/** Whether a method can be called from outside the mesh. */
export function isExposed({ access }: Pick<Method, "access">): boolean {
  return access.anyone || access.account || access.operator;
}

/** Whether its idempotency allows more than one attempt. */
export function mayRetry({ idempotency }: Pick<Method, "idempotency">): boolean {
  return idempotency !== "IDEMPOTENCY_UNKNOWN";
}
