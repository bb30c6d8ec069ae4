import assert from "node:assert/strict";
import { BudgetSchema, CacheSchema, CallersSchema, PolicySchema, RateSchema } from "#gen/marketplace/policy/v1/policy_pb.ts";
import { CART, difference, everything } from "./foreign.ts";

/** A change of one option, and the lines of all outputs that it changes. */
interface Change {
  readonly option: string;
  readonly from: string;
  readonly to: string;
  readonly gone: readonly string[];
  readonly now: readonly string[];
}

const CHANGES: readonly Change[] = [
  {
    option: "callers.account",
    from: "account: true, ",
    to: "",
    gone: [
      'generated/policies.json: "exposed": true,',
      'generated/policies.json: "exposed": true,',
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: outside([outside]) --> cart",
      "call-graph.md: | a signed-in account | `CartService/GetCart` |",
    ],
    now: [
      'generated/policies.json: "exposed": false,',
      'generated/policies.json: "exposed": false,',
      'generated/policies.json: "access": {"anyone": false, "account": false, "operator": false, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: | a signed-in account |  |",
    ],
  },
  {
    option: "callers.anyone",
    from: "account: true",
    to: "anyone: true",
    gone: [
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: | anyone |  |",
      "call-graph.md: | a signed-in account | `CartService/GetCart` |",
    ],
    now: [
      'generated/policies.json: "access": {"anyone": true, "account": false, "operator": false, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | anyone, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: | anyone | `CartService/GetCart` |",
      "call-graph.md: | a signed-in account |  |",
    ],
  },
  {
    option: "callers.operator",
    from: "account: true",
    to: "operator: true",
    gone: [
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: | a signed-in account | `CartService/GetCart` |",
      "call-graph.md: | an operator only |  |",
    ],
    now: [
      'generated/policies.json: "access": {"anyone": false, "account": false, "operator": true, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | operator, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: | a signed-in account |  |",
      "call-graph.md: | an operator only | `CartService/GetCart` |",
    ],
  },
  {
    option: "callers.services",
    from: ', services: ["checkout"]',
    to: "",
    gone: [
      'generated/policies.json: "calledBy": ["checkout"],',
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]}',
      'generated/policies.json: {"name": "checkout", "calls": ["cart"], "calledBy": [], "exposed": false, "methods": []}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: checkout --> cart",
      "call-graph.md: | checkout | `CartService/GetCart` |",
    ],
    now: [
      'generated/policies.json: "calledBy": [],',
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": []}',
      'generated/policies.json: {"name": "checkout", "calls": [], "calledBy": [], "exposed": false, "methods": []}',
      "reference.md: | `GetCart` GET | account | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
  },
  {
    option: "timeout",
    from: "seconds: 2}",
    to: "seconds: 3}",
    gone: [
      'generated/policies.json: "timeoutMs": 2000,',
      'shop.cart.v1.CartService.json: "timeout": "2s",',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
    now: [
      'generated/policies.json: "timeoutMs": 3000,',
      'shop.cart.v1.CartService.json: "timeout": "3s",',
      "reference.md: | `GetCart` GET | account, service checkout | 3 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
  },
  {
    option: "max_attempts",
    from: "max_attempts: 3",
    to: "max_attempts: 2",
    gone: [
      'generated/policies.json: "attempts": 3,',
      'shop.cart.v1.CartService.json: "maxAttempts": 3,',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
    now: [
      'generated/policies.json: "attempts": 2,',
      'shop.cart.v1.CartService.json: "maxAttempts": 2,',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 2 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
  },
  {
    option: "max_request_bytes",
    from: "max_attempts: 3",
    to: "max_attempts: 3 max_request_bytes: 1048576",
    gone: ["reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |"],
    now: ["reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 1024 KiB |  |  | 50 ms | 99.9 % |"],
  },
  {
    option: "rate",
    from: "max_attempts: 3",
    to: "max_attempts: 3 rate: {per_minute: 60}",
    gone: [
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]}',
      'values.schema.json: "properties": {"shop.cart.v1.CartService/GetCart": {"$ref": "#/definitions/unary-repeatable"}}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
    now: [
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]},',
      'generated/policies.json: "rate": {"perMinute": 60, "burst": 6}',
      'values.schema.json: "properties": {"shop.cart.v1.CartService/GetCart": {"$ref": "#/definitions/unary-repeatable-rated"}}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  | 60/min, 6 at once | 50 ms | 99.9 % |",
    ],
  },
  {
    option: "rate.burst",
    from: "max_attempts: 3",
    to: "max_attempts: 3 rate: {per_minute: 60 burst: 9}",
    gone: [
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]}',
      'values.schema.json: "properties": {"shop.cart.v1.CartService/GetCart": {"$ref": "#/definitions/unary-repeatable"}}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
    now: [
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]},',
      'generated/policies.json: "rate": {"perMinute": 60, "burst": 9}',
      'values.schema.json: "properties": {"shop.cart.v1.CartService/GetCart": {"$ref": "#/definitions/unary-repeatable-rated"}}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  | 60/min, 9 at once | 50 ms | 99.9 % |",
    ],
  },
  {
    option: "cache",
    from: "max_attempts: 3",
    to: "max_attempts: 3 cache: {max_age: {seconds: 30}}",
    gone: ["reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |"],
    now: [
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB | private, max-age=30 |  | 50 ms | 99.9 % |",
    ],
  },
  {
    option: "cache.shared",
    from: 'account: true, services: ["checkout"]}',
    to: 'anyone: true, services: ["checkout"]} cache: {max_age: {seconds: 30} shared: true}',
    gone: [
      'generated/policies.json: "access": {"anyone": false, "account": true, "operator": false, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "call-graph.md: | anyone |  |",
      "call-graph.md: | a signed-in account | `CartService/GetCart` |",
    ],
    now: [
      'generated/policies.json: "access": {"anyone": true, "account": false, "operator": false, "services": ["checkout"]}',
      "reference.md: | `GetCart` GET | anyone, service checkout | 2 s | 3 | 64 KiB | public, max-age=30 |  | 50 ms | 99.9 % |",
      "call-graph.md: | anyone | `CartService/GetCart` |",
      "call-graph.md: | a signed-in account |  |",
    ],
  },
  {
    option: "budget.p99_latency",
    from: "nanos: 50000000",
    to: "nanos: 300000000",
    gone: [
      'generated/policies.json: "minPerTryMs": 100,',
      'generated/alert-rules.yaml: le: "0.05"',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
    now: [
      'generated/policies.json: "minPerTryMs": 600,',
      'generated/alert-rules.yaml: le: "0.3"',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 300 ms | 99.9 % |",
    ],
  },
  {
    option: "budget.availability_ppm",
    from: "999000",
    to: "999900",
    gone: [
      'generated/alert-rules.yaml: expr: "vector(0.001)"',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
    now: [
      'generated/alert-rules.yaml: expr: "vector(0.0001)"',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.99 % |",
    ],
  },
  {
    option: "max_stream_age",
    from: 'returns (GetCartResponse) {\n    option idempotency_level = NO_SIDE_EFFECTS;\n    option (marketplace.policy.v1.method) = {\n      callers: {account: true, services: ["checkout"]}\n      timeout: {seconds: 2}',
    to: 'returns (stream GetCartResponse) {\n    option idempotency_level = NO_SIDE_EFFECTS;\n    option (marketplace.policy.v1.method) = {\n      callers: {account: true, services: ["checkout"]}\n      max_stream_age: {seconds: 600}',
    gone: [
      'generated/policies.json: "http": ["POST", "GET"],',
      'generated/policies.json: "stream": false,',
      'generated/policies.json: "timeoutMs": 2000,',
      'generated/policies.json: "minPerTryMs": 100,',
      'values.schema.json: "properties": {"shop.cart.v1.CartService/GetCart": {"$ref": "#/definitions/unary-repeatable"}}',
      'shop.cart.v1.CartService.json: "timeout": "2s",',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "reference.md: **GetCart** `GetCartRequest` → `GetCartResponse`",
    ],
    now: [
      'generated/policies.json: "http": ["POST"],',
      'generated/policies.json: "stream": true,',
      'generated/policies.json: "timeoutMs": 0,',
      'generated/policies.json: "minPerTryMs": 0,',
      'values.schema.json: "properties": {"shop.cart.v1.CartService/GetCart": {"$ref": "#/definitions/stream-repeatable"}}',
      "reference.md: | `GetCart` | account, service checkout | stream, 600 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
      "reference.md: **GetCart** `GetCartRequest` → stream of `GetCartResponse`",
    ],
  },
  {
    option: "idempotency_level",
    from: "NO_SIDE_EFFECTS",
    to: "IDEMPOTENT",
    gone: [
      'generated/policies.json: "http": ["POST", "GET"],',
      "reference.md: | `GetCart` GET | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
    now: [
      'generated/policies.json: "http": ["POST"],',
      "reference.md: | `GetCart` | account, service checkout | 2 s | 3 | 64 KiB |  |  | 50 ms | 99.9 % |",
    ],
  },
  {
    option: "service.workloads",
    from: "service CartService {",
    to: 'service CartService {\n  option (marketplace.policy.v1.service) = {workloads: ["basket"]};',
    gone: [
      'generated/policies.json: "name": "cart",',
      'generated/policies.json: {"name": "checkout", "calls": ["cart"], "calledBy": [], "exposed": false, "methods": []}',
      'values.schema.json: "workloads": {"type": "array", "items": {"enum": ["cart", "checkout"]}}',
      'values.schema.json: "properties": {"cart": {"$ref": "#/definitions/canary"}, "checkout": {"$ref": "#/definitions/canary"}}',
      "call-graph.md: outside([outside]) --> cart",
      "call-graph.md: checkout --> cart",
    ],
    now: [
      'generated/policies.json: "name": "basket",',
      'generated/policies.json: {"name": "checkout", "calls": ["basket"], "calledBy": [], "exposed": false, "methods": []}',
      'values.schema.json: "workloads": {"type": "array", "items": {"enum": ["basket", "checkout"]}}',
      'values.schema.json: "properties": {"basket": {"$ref": "#/definitions/canary"}, "checkout": {"$ref": "#/definitions/canary"}}',
      "call-graph.md: outside([outside]) --> basket",
      "call-graph.md: checkout --> basket",
    ],
  },
  {
    option: "door",
    from: "// Carts of the shop.",
    to: 'option (marketplace.policy.v1.door) = {name: "hook", workload: "cart", path: "/hooks/", http_methods: ["POST"], timeout: {seconds: 5}};\n// Carts of the shop.',
    gone: ['generated/policies.json: "doors": []'],
    now: [
      'generated/policies.json: "doors": [{"name": "hook", "workload": "cart", "path": "/hooks/", "http": ["POST"], "timeoutMs": 5000, "switch": ""}]',
      "reference.md: ## Doors that are not RPCs",
      "reference.md: ",
      "reference.md: | door | path | methods | answered by | timeout | rate | open with |",
      "reference.md: |---|---|---|---|---|---|---|",
      "reference.md: | hook | `/hooks/` | POST | cart | 5 s |  |  |",
      "reference.md: ",
    ],
  },
];

describe("one option of a policy", () => {
  let lines: string[];
  before(async () => {
    lines = await everything(CART);
  });

  for (const { option, from, to, gone, now } of CHANGES) {
    it(`${option} changes its own lines and no other`, async () => {
      assert.ok(CART.includes(from), `the proto has no "${from}"`);
      assert.deepEqual(difference(lines, await everything(CART.replace(from, to))), { gone, new: now });
    });
  }

  it("is tested here, whichever it is", () => {
    const options = [PolicySchema, CallersSchema, CacheSchema, RateSchema, BudgetSchema].flatMap(({ fields }) => fields);
    const tested = CHANGES.map(({ option, to }) => `${option} ${to}`).join(" ");
    assert.deepEqual(
      options.map(({ name }) => name).filter((name) => !new RegExp(`\\b${name}\\b`).test(tested)),
      [],
    );
  });
});
