import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { policies } from "../../mesh/plugin/policies.ts";
import { root } from "../../tools/checks/run.ts";
import { allows, byName, golden, type Seen } from "./rendered.ts";

type Policies = ReturnType<typeof policies>;
const { workloads }: Policies = JSON.parse(readFileSync(join(root, "mesh/generated/policies.json"), "utf8"));
const resources = golden("mesh-production");

const GATEWAY = "cluster.local/ns/istio-ingress/sa/istio-ingressgateway";
const serviceAccount = (name: string) => `cluster.local/ns/shop/sa/souk-${name}`;

/** What the rates of the gateway look like. */
interface RatePatch {
  readonly match: { readonly routeConfiguration?: { readonly vhost: { readonly route: { readonly name: string } } } };
}

/** The renderings that let calls in, and who signs their accounts' tokens. */
const ISSUERS: Readonly<Record<string, string>> = {
  "mesh-production": "https://id.example",
  "souk-production": "https://id.example",
  "souk-default": "http://souk-issuer.shop.svc.cluster.local:8080",
  "souk-everything": "souk",
};

/** Everybody who may try. */
function callersOf(issuer: string): Readonly<Record<string, Omit<Seen, "path" | "method">>> {
  const account = { principal: GATEWAY, requestPrincipal: `${issuer}/01900000-0000-7000-8000-0000000000a1` };
  return {
    nobody: { principal: GATEWAY },
    account: { ...account, roles: [] },
    operator: { ...account, roles: ["operator"] },
    "an account with other roles": { ...account, roles: ["seller"] },
    "a foreign token": { principal: GATEWAY, requestPrincipal: "https://evil.example/01900000", roles: ["operator"] },
    "an account without the gateway": { ...account, principal: serviceAccount("web"), roles: ["operator"] },
    "another namespace": { principal: "cluster.local/ns/other/sa/souk-order" },
    "another trust domain": { principal: "other.example/ns/shop/sa/souk-order" },
    ...Object.fromEntries(workloads.map(({ name }) => [`service ${name}`, { principal: serviceAccount(name) }])),
  };
}

function declared(caller: string, access: Policies["workloads"][number]["methods"][number]["access"]): boolean {
  switch (caller) {
    case "nobody":
    case "a foreign token":
      return access.anyone;
    case "account":
    case "an account with other roles":
      return access.anyone || access.account;
    case "operator":
      return access.anyone || access.account || access.operator;
    default:
      return caller.startsWith("service ") && access.services.includes(caller.slice("service ".length));
  }
}

describe("the rendered policies", () => {
  for (const [set, issuer] of Object.entries(ISSUERS)) {
    it(`let each caller call each method as the proto declares, and nothing else, in ${set}`, () => {
      const callers = callersOf(issuer);
      const allowed = byName(golden(set), "AuthorizationPolicy");
      let compared = 0;
      for (const { name: workload, methods } of workloads) {
        const policy = allowed.get(`souk-${workload}`);
        for (const method of methods) {
          for (const [caller, seen] of Object.entries(callers)) {
            // A workload's calls to itself stay in the process.
            const wanted = declared(caller, method.access) && caller !== `service ${workload}`;
            const request = { ...seen, path: `/${method.name}`, method: "POST" };
            assert.equal(allows(policy, request), wanted, `${caller} calls ${method.name} of ${workload}`);
            assert.equal(
              allows(policy, { ...request, method: "GET" }),
              wanted && method.http.includes("GET"),
              `GET ${method.name}`,
            );
            assert.ok(!allows(policy, { ...request, method: "PUT" }), `PUT ${method.name}`);
            compared++;
          }
        }
        for (const seen of Object.values(callers)) assert.ok(!allows(policy, { ...seen, path: "/metrics", method: "GET" }));
      }
      assert.ok(compared > 1500);
    });
  }

  it("deny all pods of the installation what no policy allows, and take mutual TLS only", () => {
    const installation = { "app.kubernetes.io/instance": "souk" };
    const denied = byName(resources, "AuthorizationPolicy").get("souk-deny-by-default");
    assert.deepEqual(denied?.spec, { selector: { matchLabels: installation } });
    const strict = byName(resources, "PeerAuthentication").get("souk-strict");
    assert.deepEqual(strict?.spec, { selector: { matchLabels: installation }, mtls: { mode: "STRICT" } });
  });

  it("expose exactly the methods that may be called from outside", () => {
    const exposed = workloads.flatMap(({ methods }) => methods.filter((method) => method.exposed).map(({ name }) => `/${name}`));
    const paths = byName(resources, "VirtualService").get("souk-ingress")?.spec.http.map(pathOf);
    assert.deepEqual(paths, exposed);
    const [rule] = byName(resources, "AuthorizationPolicy").get("souk-exposed-only")?.spec.rules ?? [];
    assert.deepEqual(rule.to[0].operation.notPaths, exposed);
  });

  it("put the web page behind all exact paths, and doors between", () => {
    const routes = byName(golden("mesh-everything"), "VirtualService").get("shop-ingress")?.spec.http as { name: string }[];
    const names = routes.map(({ name }) => name);
    assert.deepEqual(names.slice(-2), ["shop/door/simulator-confirmations", "shop/web-page"]);
    assert.equal(names.filter((name) => name.startsWith("shop/door/")).length, 1);
  });

  it("count a method's rate on all routes of it, and on none of another installation behind the same gateway", () => {
    const routesOf = (set: string, prefix: string) => {
      const { http } = byName(golden(set), "VirtualService").get(`${prefix}-ingress`)?.spec ?? {};
      return (http as { name: string }[]).map(({ name }) => name);
    };
    const countedOf = (set: string, prefix: string) => {
      const { configPatches } = byName(golden(set), "EnvoyFilter").get(`${prefix}-rate-limits`)?.spec ?? {};
      return (configPatches as RatePatch[]).flatMap(({ match }) => match.routeConfiguration?.vhost.route.name ?? []);
    };
    const rated = workloads.flatMap(({ methods }) =>
      methods.filter(({ exposed, rate }) => exposed && rate).map(({ name }) => name),
    );
    assert.deepEqual(
      countedOf("mesh-production", "souk"),
      rated.map((name) => `souk/${name}`),
    );
    const counted = countedOf("mesh-everything", "shop");
    const routes = routesOf("mesh-everything", "shop");
    assert.ok(routes.some((name) => name.endsWith("/canary")));
    assert.deepEqual(
      routes.filter((name) => rated.some((each) => [`shop/${each}`, `shop/${each}/canary`].includes(name))).sort(),
      counted.filter((name) => !name.startsWith("shop/door/")).sort(),
    );
    const others = new Set(routesOf("mesh-production", "souk"));
    assert.deepEqual(
      counted.filter((name) => others.has(name)),
      [],
    );
  });

  it("bound every method's route, and retry only what declares it", () => {
    const services = byName(resources, "VirtualService");
    for (const { name: workload, methods } of workloads) {
      const routes = services.get(`souk-${workload}`)?.spec.http ?? [];
      assert.deepEqual(
        routes.map(pathOf),
        methods.map(({ name }) => `/${name}`),
      );
      for (const [index, method] of methods.entries()) {
        const { timeout, retries } = routes[index];
        assert.equal(timeout, method.stream ? undefined : `${method.timeoutMs}ms`, method.name);
        assert.equal(retries.attempts, method.attempts - 1, method.name);
        if (method.attempts > 1) assert.match(retries.retryOn, /\bunavailable\b.*\b503$/);
        if (method.attempts > 1 && !method.stream) {
          const perTryMs = Number(retries.perTryTimeout.replace("ms", ""));
          assert.ok(perTryMs >= method.timeoutMs / method.attempts - 1 && perTryMs <= method.timeoutMs, method.name);
        }
      }
    }
  });

  it("let each workload reach those it calls and what egress names for it, and nothing else", () => {
    const sidecars = byName(resources, "Sidecar");
    const hostsOf = { mysql: "./db.example", redis: "./redis.example", processor: "./api.processor.example" };
    for (const { name, calls } of workloads) {
      const spec = sidecars.get(`souk-${name}`)?.spec;
      const egress = name === "ops" ? ["redis"] : name === "payment" ? ["mysql", "processor", "redis"] : ["mysql", "redis"];
      const hosts = [
        ...calls.map((each) => `./souk-${each}.shop.svc.cluster.local`),
        ...egress.map((each) => hostsOf[each as keyof typeof hostsOf]),
      ];
      assert.deepEqual(spec.egress[0].hosts.toSorted(), hosts.toSorted(), name);
      assert.equal(spec.outboundTrafficPolicy.mode, "REGISTRY_ONLY");
    }
  });

  it("draw the same call graph below the mesh", () => {
    const networks = byName(resources, "NetworkPolicy");
    for (const { name, calls, calledBy, exposed } of workloads) {
      const { ingress, egress } = networks.get(`souk-${name}`)?.spec ?? {};
      const podsOf = (rules: { from?: Peer[]; to?: Peer[] }[]) =>
        rules.flatMap(({ from = [], to = [] }) => [...from, ...to]).flatMap(({ podSelector }) => nameOf(podSelector));
      assert.deepEqual(podsOf(ingress ?? []), calledBy, name);
      assert.deepEqual(podsOf(egress ?? []), calls, name);
      const fromGateway = JSON.stringify(ingress ?? []).includes("istio-ingress");
      assert.equal(fromGateway, exposed, name);
    }
  });

  it("count no more retries at once than their budget, for every workload", () => {
    const rules = byName(resources, "DestinationRule");
    for (const { name } of workloads) {
      const { retryBudget, tls } = rules.get(`souk-${name}`)?.spec.trafficPolicy ?? {};
      assert.deepEqual(
        { retryBudget, tls },
        { retryBudget: { percent: 5, minRetryConcurrency: 3 }, tls: { mode: "ISTIO_MUTUAL" } },
      );
    }
  });
});

function pathOf(route: { match: { uri: { exact?: string; prefix?: string } }[] }): string | undefined {
  return route.match[0]?.uri.exact ?? route.match[0]?.uri.prefix;
}

interface Peer {
  readonly podSelector?: { matchLabels: Record<string, string> };
}

function nameOf(selector: Peer["podSelector"]): string[] {
  const name = selector?.matchLabels["app.kubernetes.io/name"];
  return name === undefined ? [] : [name];
}
