import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { tool } from "./cluster.ts";

/** The names of a service's pods that are not ending, those that take calls first. */
export async function podsOf({ name }: { readonly name: string }, service: string): Promise<string[]> {
  const selector = `app.kubernetes.io/instance=${name},app.kubernetes.io/name=${service}`;
  const { items } = JSON.parse(await tool("kubectl", "-n", name, "get", "pods", "-l", selector, "-o", "json")) as PodList;
  return items.filter(({ metadata }) => metadata.deletionTimestamp === undefined).map(({ metadata }) => metadata.name);
}

/** How many of a service's pods take calls. */
export async function readyPods({ name }: { readonly name: string }, service: string): Promise<number> {
  const selector = `app.kubernetes.io/instance=${name},app.kubernetes.io/name=${service}`;
  const { items } = JSON.parse(await tool("kubectl", "-n", name, "get", "pods", "-l", selector, "-o", "json")) as PodList;
  return items.filter(({ metadata, status }) => metadata.deletionTimestamp === undefined && isReady(status)).length;
}

const isReady = ({ conditions = [] }: PodStatus) => conditions.some(({ type, status }) => type === "Ready" && status === "True");

interface PodStatus {
  readonly conditions?: readonly { readonly type: string; readonly status: string }[];
}

interface PodList {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
    readonly status: PodStatus;
  }[];
}

/** Ends a pod as a machine that fails would: nobody tells it. */
export async function killPod({ name }: { readonly name: string }, pod: string): Promise<void> {
  await tool("kubectl", "-n", name, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false");
}

/** Asks to evict a pod, as who empties a node does; answers whether the disruption budget allows it. */
export async function evict({ name }: { readonly name: string }, pod: string): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), "souk-evict-"));
  const file = join(folder, "eviction.json");
  try {
    writeFileSync(file, JSON.stringify({ apiVersion: "policy/v1", kind: "Eviction", metadata: { name: pod, namespace: name } }));
    await tool("kubectl", "create", "--raw", `/api/v1/namespaces/${name}/pods/${pod}/eviction`, "-f", file);
    return true;
  } catch (error) {
    // 429: not now, come back.
    assert.match(String(error), /disruption budget/);
    return false;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What emptying a service of its pods came to. */
export interface Emptied {
  /** Evictions that were refused for the time being. */
  readonly refused: number;
  /** The fewest pods that took calls at any time. */
  readonly leastReady: number;
}

/** Evicts all pods that a service has now, each as soon as that is allowed, and watches how many take calls meanwhile. */
export async function evictAll(release: { readonly name: string }, service: string): Promise<Emptied> {
  const left = await podsOf(release, service);
  let refused = 0;
  let leastReady = left.length;
  for (const end = Date.now() + 180_000; left.length > 0; await sleep(500)) {
    assert.ok(Date.now() < end, `${left.join(", ")} may not be evicted`);
    for (const pod of [...left]) {
      if (await evict(release, pod)) left.splice(left.indexOf(pod), 1);
      else refused++;
    }
    leastReady = Math.min(leastReady, await readyPods(release, service));
  }
  return { refused, leastReady };
}

/** Takes the mesh's control plane away while some work is done. */
export async function withoutControlPlane(work: () => Promise<void>): Promise<void> {
  const istiod = (replicas: number) => tool("kubectl", "-n", "istio-system", "scale", "deploy/istiod", `--replicas=${replicas}`);
  await istiod(0);
  try {
    await tool("kubectl", "-n", "istio-system", "wait", "--for=delete", "pod", "-l", "app=istiod", "--timeout=60s");
    await work();
  } finally {
    await istiod(1);
    await tool("kubectl", "-n", "istio-system", "rollout", "status", "deploy/istiod", "--timeout=120s");
  }
}
