// `npm run test:cluster`: the tests that need a cluster with Istio (`tests/cluster`).

import { globSync } from "node:fs";
import { parseArgs } from "node:util";
import { runTests } from "./checks/mocha.ts";
import { root, run } from "./checks/run.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const HELP = `npm run test:cluster -- [--grep TEXT]

Runs tests/cluster against the cluster of the current kubeconfig, in namespaces of their own that they remove. It needs Istio with an ingress
gateway, and kubectl, helm and istioctl on the PATH.

  SOUK_CLUSTER_GATEWAY_URL        where the gateway is reached over HTTP
  SOUK_CLUSTER_GATEWAY_NAMESPACE  where it runs (istio-ingress)`;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { grep: { type: "string" }, help: { type: "boolean", default: false } } });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const seen = await run("kubectl", ["get", "namespaces", "--request-timeout=10s"]);
  if (seen.code !== 0) throw new Usage(`there is no cluster to be seen: ${seen.output.trim().split("\n").at(-1)}`);
  const files = globSync("tests/cluster/*.cluster.ts", { cwd: root }).sort();
  const { passed, failed, problems, failures } = await runTests({ grep: values.grep, jobs: 1, files });
  for (const text of [...failures, ...problems]) console.log(`${text}\n`);
  console.log(`${passed} passed, ${failed + problems.length} failed`);
  process.exitCode = failed + problems.length > 0 ? 1 : 0;
}

await runCommand("npm run test:cluster", main);
