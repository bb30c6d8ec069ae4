import assert from "node:assert/strict";
import { valueSets } from "../../tools/charts.ts";
import { byName, type Resource, golden as read } from "../charts/rendered.ts";

/** Reading a rendering takes a third of a second. */
const readings = new Map<string, Resource[]>();
function golden(name: string): Resource[] {
  const found = readings.get(name) ?? read(name);
  readings.set(name, found);
  return found;
}

/** The value sets that install the whole marketplace. */
const SETS = valueSets().filter(({ chart }) => chart === "helm/souk");

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args: readonly string[];
  readonly env?: readonly { name: string; value?: string; valueFrom?: { secretKeyRef?: object } }[];
  readonly resources: { requests?: Record<string, string>; limits?: Record<string, string> };
  readonly securityContext: Record<string, unknown>;
  readonly livenessProbe?: unknown;
  readonly readinessProbe?: unknown;
  readonly startupProbe?: unknown;
}

/** Every pod that a rendering makes: those of services, and those of jobs. */
function pods(resources: readonly Resource[]) {
  return resources
    .filter(({ kind }) => kind === "Deployment" || kind === "Job")
    .map(({ kind, metadata, spec }) => ({ kind, name: metadata.name, spec, pod: spec.template.spec }));
}

const containersOf = (pod: { containers: Container[]; initContainers?: Container[] }) => [
  ...pod.containers,
  ...(pod.initContainers ?? []),
];

/** The name of each place, with what is wrong there. */
function wrong(find: (pod: ReturnType<typeof pods>[number], container: Container) => boolean): string[] {
  return SETS.flatMap((set) =>
    pods(golden(set.name)).flatMap((each) =>
      containersOf(each.pod)
        .filter((container) => find(each, container))
        .map(({ name }) => `${set.name}: ${each.name}/${name}`),
    ),
  );
}

describe("every pod of the chart", () => {
  it("is there to be looked at: each service, in each value set", () => {
    assert.ok(SETS.length >= 2);
    for (const set of SETS) assert.ok(pods(golden(set.name)).filter(({ kind }) => kind === "Deployment").length >= 7, set.name);
  });

  it("keeps nothing that must last: its volumes are empty at its start, or secrets and settings", () => {
    const lasting = SETS.flatMap((set) =>
      pods(golden(set.name)).flatMap(({ name, pod }) =>
        (pod.volumes ?? [])
          .filter((volume: object) => !["emptyDir", "secret", "configMap", "projected"].some((each) => each in volume))
          .map((volume: { name: string }) => `${set.name}: ${name} has ${volume.name}`),
      ),
    );
    assert.deepEqual(lasting, []);
  });

  it("asks for processors and memory, and is bounded in memory", () => {
    assert.deepEqual(
      wrong((_, { resources }) => !resources.requests?.cpu || !resources.requests.memory || !resources.limits?.memory),
      [],
    );
  });

  it("of a service says when it has started, lives, and is ready", () => {
    const unasked = wrong(
      ({ kind }, container) =>
        kind === "Deployment" &&
        container.name === "souk" &&
        !(container.startupProbe && container.livenessProbe && container.readinessProbe),
    );
    assert.deepEqual(unasked, []);
  });

  it("of a service writes its log as JSON, to where the cluster gathers it", () => {
    const others = wrong(
      ({ kind }, { name, env = [] }) =>
        kind === "Deployment" && name === "souk" && !env.some((each) => each.name === "SOUK_LOG_FORMAT" && each.value === "json"),
    );
    assert.deepEqual(others, []);
  });
});

describe("every service of the chart", () => {
  /** The one exception is told by its strategy: payment with the simulator, whose books go with its one pod. */
  const several = (set: string) =>
    [...byName(golden(set), "Deployment")].filter(([, { spec }]) => spec.strategy.type !== "Recreate");

  it("is replaced pod by pod, a new one first", () => {
    for (const set of SETS) {
      for (const [name, { spec }] of several(set.name))
        assert.equal(spec.strategy.rollingUpdate?.maxUnavailable, 0, `${set.name}: ${name}`);
    }
  });

  it("is spread over zones and nodes", () => {
    for (const set of SETS) {
      for (const [name, { spec }] of several(set.name)) {
        const keys = spec.template.spec.topologySpreadConstraints.map((each: { topologyKey: string }) => each.topologyKey);
        assert.deepEqual(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"], name);
      }
    }
  });

  it("may have as many pods as its values say, or follow its use of processors", () => {
    const resources = golden("souk-production");
    const [catalog] = byName(resources, "HorizontalPodAutoscaler").values();
    const deployments = byName(resources, "Deployment");
    assert.equal(catalog?.spec.scaleTargetRef.name, "souk-catalog");
    assert.equal(catalog?.spec.metrics[0].resource.name, "cpu");
    assert.ok(catalog?.spec.minReplicas >= 2 && catalog?.spec.maxReplicas > catalog?.spec.minReplicas);
    // The autoscaler's number is not fought over.
    assert.equal(deployments.get("souk-catalog")?.spec.replicas, undefined);
    assert.equal(deployments.get("souk-order")?.spec.replicas, 2);
  });

  it("gives a canary the share of its calls that the values say, and nobody else's", () => {
    interface Route {
      readonly route?: readonly { destination: { host: string; subset?: string }; weight?: number }[];
    }
    const routes = [...byName(golden("mesh-everything"), "VirtualService").values()].flatMap(
      ({ spec }): Route[] => spec.http ?? [],
    );
    const weights = (workload: string) =>
      routes
        .flatMap(({ route = [] }) => route)
        .filter(({ destination }) => destination.host.startsWith(`shop-${workload}.`))
        .map(({ destination, weight }) => `${destination.subset} ${weight}`);
    assert.deepEqual(new Set(weights("order")), new Set(["canary 10", "stable 90"]));
    assert.deepEqual(new Set(weights("payment")), new Set(["undefined undefined"]));
  });
});
