import assert from "node:assert/strict";
import { valueSets } from "../../tools/charts.ts";
import { byName, golden, type Resource } from "./rendered.ts";

const SERVICES = ["account", "catalog", "inventory", "ops", "order", "payment", "search"];

/** What the tests look at of a container. */
interface Container {
  readonly image: string;
  readonly resources: { readonly requests?: object; readonly limits?: Readonly<Record<string, string>> };
  readonly securityContext: unknown;
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
}

/** The pods of a rendering, by what makes them. */
function podsOf(resources: readonly Resource[]) {
  return resources.flatMap((each) => {
    const { kind, metadata, spec } = each;
    if (kind === "Pod") return [{ name: `${kind} ${metadata.name}`, pod: spec }];
    if (kind === "Deployment" || kind === "Job") return [{ name: `${kind} ${metadata.name}`, pod: spec.template.spec }];
    return [];
  });
}

describe("the rendered souk chart", () => {
  for (const { name: set } of valueSets().filter(({ chart }) => chart === "helm/souk")) {
    const resources = golden(set);

    it(`makes every pod as restricted as can be and bounds what it uses, in ${set}`, () => {
      const pods = podsOf(resources);
      assert.ok(pods.length >= SERVICES.length + 1);
      for (const { name, pod } of pods) {
        assert.equal(pod.securityContext.runAsNonRoot, true, name);
        assert.deepEqual(pod.securityContext.seccompProfile, { type: "RuntimeDefault" }, name);
        assert.equal(pod.automountServiceAccountToken, false, name);
        for (const far of ["hostNetwork", "hostPID", "hostIPC"]) assert.equal(pod[far], undefined, name);
        for (const volume of pod.volumes ?? []) assert.equal(volume.hostPath, undefined, name);
        for (const container of [...pod.containers, ...(pod.initContainers ?? [])] as Container[]) {
          assert.deepEqual(
            container.securityContext,
            { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true, capabilities: { drop: ["ALL"] } },
            name,
          );
          assert.ok(container.resources.requests && container.resources.limits?.memory, name);
        }
      }
    });

    it(`runs one image of a named version, and knows passwords by reference only, in ${set}`, () => {
      const containers = podsOf(resources).flatMap(({ pod }) => pod.containers as Container[]);
      assert.equal(new Set(containers.map(({ image }) => image)).size, 1);
      assert.match(containers[0]?.image ?? "", /(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})$/);
      for (const { env = [] } of containers) {
        for (const { name, value } of env) {
          if (/PASSWORD|REDIS_URL/.test(name)) assert.equal(value, undefined, name);
          assert.doesNotMatch(value ?? "", /:\/\/[^/]*:(?!\$\(PASSWORD\)|none)[^/]*@/, name);
        }
      }
      assert.equal(byName(resources, "Secret").size, 0);
    });

    it(`gives every service an identity, an address, a network policy and a bound of its disruptions, in ${set}`, () => {
      const mesh = byName(resources, "PeerAuthentication").size > 0;
      for (const service of SERVICES) {
        const name = `souk-${service}`;
        const deployment = byName(resources, "Deployment").get(name)?.spec;
        assert.equal(deployment.template.spec.serviceAccountName, name);
        assert.ok(byName(resources, "ServiceAccount").has(name), name);
        const { clusterIP, ports } = byName(resources, "Service").get(name)?.spec ?? {};
        assert.deepEqual([clusterIP, ports[0].name], [mesh ? undefined : "None", "grpc"], name);
        assert.deepEqual(byName(resources, "NetworkPolicy").get(name)?.spec.policyTypes, ["Ingress", "Egress"], name);
        const disruption = byName(resources, "PodDisruptionBudget").get(name)?.spec;
        if (deployment.strategy.type !== "Recreate") assert.equal(disruption.maxUnavailable, 1, name);
      }
    });

    it(`lets no pod end before its calls have, in ${set}`, () => {
      for (const service of SERVICES) {
        const pod = byName(resources, "Deployment").get(`souk-${service}`)?.spec.template.spec;
        const [{ env, lifecycle, readinessProbe, startupProbe }] = pod.containers;
        const drainMs = Number(env.find(({ name }: { name: string }) => name === "SOUK_DRAIN_MS").value);
        assert.ok(pod.terminationGracePeriodSeconds > lifecycle.preStop.sleep.seconds + drainMs / 1000, service);
        assert.ok(readinessProbe.grpc && startupProbe, service);
      }
    });
  }

  it("lets services reach the stores and the issuer where the values say that they are, payment the processor, and none another place", () => {
    const hostsOf = (set: string, service: string) =>
      byName(golden(set), "Sidecar")
        .get(`souk-${service}`)
        ?.spec.egress[0].hosts.filter((host: string) => !host.includes("/souk-"));
    const beside = (name: string) => `shop/${name}.shop.svc.cluster.local`;
    assert.deepEqual(hostsOf("souk-default", "order"), [beside("mariadb"), beside("redis")]);
    assert.deepEqual(hostsOf("souk-default", "ops"), [beside("redis")]);
    const production = ["./db.example", "./db-replica.example", "./id.example", "./redis.example"];
    assert.deepEqual(hostsOf("souk-production", "order"), production);
    assert.deepEqual(hostsOf("souk-production", "payment").toSorted(), [...production, "./processor.example"].toSorted());
    assert.deepEqual(hostsOf("souk-everything", "order"), [
      "./10-0-0-7.souk-stores.internal",
      "./redis-a.example",
      "./redis-b.example",
      "./redis.example",
      "monitoring/otel-collector.monitoring.svc.cluster.local",
    ]);
    const entries = byName(golden("souk-everything"), "ServiceEntry");
    const { addresses, resolution } = entries.get("souk-database")?.spec ?? {};
    assert.deepEqual({ addresses, resolution }, { addresses: ["10.0.0.7"], resolution: "NONE" });
  });

  it("tells the services of the same issuer as the mesh, and payment alone of a processor", () => {
    for (const set of ["souk-default", "souk-production"]) {
      const resources = golden(set);
      const [rule] = byName(resources, "RequestAuthentication").get("souk-ingress")?.spec.jwtRules ?? [];
      for (const service of SERVICES) {
        const [{ env }] = byName(resources, "Deployment").get(`souk-${service}`)?.spec.template.spec.containers ?? [];
        const told = new Map(env.map(({ name, value }: { name: string; value: string }) => [name, value]));
        const issuer = ["SOUK_ISSUER", "SOUK_ISSUER_AUDIENCE", "SOUK_ISSUER_JWKS"].map((name) => told.get(name));
        assert.deepEqual(issuer, [rule.issuer, ...rule.audiences, rule.jwksUri], service);
        assert.equal(told.has("SOUK_PROCESSOR"), service === "payment", service);
      }
    }
  });

  it("runs the simulated processor and the built-in issuer beside the services and outside the mesh, and neither in production", () => {
    const parts = (set: string) =>
      ["processor", "issuer"].map((name) => byName(golden(set), "Deployment").get(`souk-${name}`)?.spec.template);
    assert.deepEqual(parts("souk-production"), [undefined, undefined]);
    for (const { metadata, spec } of parts("souk-default")) {
      assert.equal(metadata.labels["sidecar.istio.io/inject"], "false");
      assert.deepEqual(
        [spec.securityContext.runAsNonRoot, spec.containers[0].securityContext.readOnlyRootFilesystem],
        [true, true],
      );
    }
    const [, issuer] = parts("souk-default");
    const secrets = issuer.spec.volumes.flatMap(({ secret }: { secret?: { items: { key: string }[] } }) => secret?.items ?? []);
    assert.deepEqual(
      secrets.map(({ key }: { key: string }) => key),
      ["accounts.pem"],
    );
    const alone = byName(golden("souk-default"), "NetworkPolicy").get("souk-processor")?.spec.ingress;
    assert.match(JSON.stringify(alone), /"app.kubernetes.io\/name":"payment"/);
  });

  it("serves the gateway's host by HTTPS in production, and by plain HTTP where things are tried out", () => {
    const servers = (set: string) => byName(golden(set), "Gateway").get("souk-ingress")?.spec.servers;
    const [https, http] = servers("souk-production");
    assert.deepEqual([https.port.protocol, https.hosts], ["HTTPS", ["api.shop.example"]]);
    assert.deepEqual(http.tls, { httpsRedirect: true });
    assert.deepEqual(
      servers("souk-default").map(({ port, hosts }: { port: { name: string }; hosts: string[] }) => [port.name, hosts]),
      [["http", ["*"]]],
    );
  });
});
