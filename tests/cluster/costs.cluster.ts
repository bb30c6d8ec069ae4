import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { tool } from "./cluster.ts";
import { underLoad } from "./load.ts";
import { IMAGE } from "./release.ts";
import { report, seconds, table } from "./report.ts";
import { type SharedRelease, sharedRelease } from "./shared.ts";

/** How long processors and memory are looked at, in ms. */
const WATCH_MS = 20_000;
const SERVICES = ["account", "catalog", "inventory", "order", "payment", "search", "ops"];

/** What one container has used: processor time since it began, and memory now. */
interface Usage {
  readonly cpuMs: number;
  readonly memoryMb: number;
}

/** By service, over all its pods: the program and its proxy. */
type Usages = Readonly<Record<string, { readonly souk: Usage; readonly proxy: Usage; readonly pods: number }>>;

describe("what a marketplace on a cluster costs", function () {
  this.timeout(600_000);
  let release: SharedRelease;
  before(async () => {
    release = await sharedRelease();
  });

  it("is told: the image, the way to the first purchase, and each service's processor and memory, idle and under load", async () => {
    const idle = await between(() => sleep(WATCH_MS));
    let loaded: Awaited<ReturnType<typeof between>> | undefined;
    const outcome = await underLoad(release, async () => {
      await sleep(3_000);
      loaded = await between(() => sleep(WATCH_MS));
    });
    assert.deepEqual(outcome.failures, []);
    const head = ["per pod", "idle: processor", "memory", "its proxy", "", "under load: processor", "memory", "its proxy", ""];
    const cells = (of: Awaited<ReturnType<typeof between>> | undefined, service: string) => of?.[service] ?? ["", "", "", ""];
    report(
      `image: ${(await imageMb()).toFixed(0)} MB unpacked`,
      `helm install --wait with two pods of each service: ${seconds(release.installMs)}; until the first purchase is answered: ${seconds(release.firstPurchaseMs)}`,
      `${outcome.calls} calls in ${seconds(WATCH_MS + 3_000)} under load`,
      ...table([head, ...SERVICES.map((service) => [service, ...cells(idle, service), ...cells(loaded, service)])]),
    );
  });

  /** What each service uses while the work is done: processor in thousandths of one, and memory, for the program and for its proxy. */
  async function between(work: () => Promise<unknown>): Promise<Record<string, string[]>> {
    const [before, beginTime] = [await usages(), performance.now()];
    await work();
    const [after, ms] = [await usages(), performance.now() - beginTime];
    return Object.fromEntries(
      Object.entries(after).map(([service, { souk, proxy, pods }]) => {
        const was = before[service];
        const cpu = (now: Usage, then: Usage | undefined) =>
          `${Math.round((1000 * (now.cpuMs - (then?.cpuMs ?? 0))) / ms / pods)} m`;
        const memory = (now: Usage) => `${Math.round(now.memoryMb / pods)} MB`;
        return [service, [cpu(souk, was?.souk), memory(souk), cpu(proxy, was?.proxy), memory(proxy)]];
      }),
    );
  }

  /** From the kubelets, which know without a metrics server. */
  async function usages(): Promise<Usages> {
    const sums: Record<string, { souk: Usage; proxy: Usage; pods: number }> = {};
    const nodes = await tool("kubectl", "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}");
    for (const node of nodes.trim().split(/\s+/)) {
      const { pods } = JSON.parse(await tool("kubectl", "get", "--raw", `/api/v1/nodes/${node}/proxy/stats/summary`)) as Summary;
      for (const { podRef, containers = [] } of pods) {
        const service = SERVICES.find((name) => podRef.name.startsWith(`${release.name}-${name}-`));
        if (podRef.namespace !== release.name || service === undefined) continue;
        const nothing = { cpuMs: 0, memoryMb: 0 };
        const sum = sums[service] ?? { souk: nothing, proxy: nothing, pods: 0 };
        const of = (name: string) => containers.find((container) => container.name === name);
        sums[service] = { souk: plus(sum.souk, of("souk")), proxy: plus(sum.proxy, of("istio-proxy")), pods: sum.pods + 1 };
      }
    }
    return sums;
  }
});

interface Summary {
  readonly pods: readonly {
    readonly podRef: { readonly name: string; readonly namespace: string };
    readonly containers?: readonly Container[];
  }[];
}

interface Container {
  readonly name: string;
  readonly cpu?: { readonly usageCoreNanoSeconds?: number };
  readonly memory?: { readonly workingSetBytes?: number };
}

function plus({ cpuMs, memoryMb }: Usage, container: Container | undefined): Usage {
  return {
    cpuMs: cpuMs + (container?.cpu?.usageCoreNanoSeconds ?? 0) / 1e6,
    memoryMb: memoryMb + (container?.memory?.workingSetBytes ?? 0) / 2 ** 20,
  };
}

/** The image as a node has it. */
async function imageMb(): Promise<number> {
  const { items } = JSON.parse(await tool("kubectl", "get", "nodes", "-o", "json")) as {
    items: readonly {
      readonly status: { readonly images: readonly { readonly names: readonly string[]; readonly sizeBytes: number }[] };
    }[];
  };
  const images = items.flatMap(({ status }) => status.images);
  const image = images.find(({ names }) => names.some((name) => name === IMAGE || name.endsWith(`/${IMAGE}`)));
  assert.ok(image, `no node has ${IMAGE}`);
  return image.sizeBytes / 1e6;
}
