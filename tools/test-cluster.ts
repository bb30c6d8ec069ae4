// `npm run test:cluster`: the tests that need a cluster with Istio (`tests/cluster`).

import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { runTests } from "./checks/mocha.ts";
import { root, run } from "./checks/run.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const HELP = `npm run test:cluster -- [--grep TEXT]

Runs tests/cluster against the cluster of the current kubeconfig, in namespaces of their own that they remove. It needs Istio with an ingress
gateway, and kubectl, helm and istioctl on the PATH.

  SOUK_CLUSTER_GATEWAY_URL        where the gateway is reached over HTTP
  SOUK_CLUSTER_GATEWAY_HTTPS_URL  where it is reached over HTTPS
  SOUK_CLUSTER_GATEWAY_NAMESPACE  where it runs (istio-ingress)
  SOUK_CLUSTER_IMAGE              the image of this tree, as the cluster pulls it (localhost/souk:test)
  SOUK_CLUSTER_PREVIOUS_IMAGE     what an upgrade comes from: the image of the commit that landed last, whose tree
  SOUK_CLUSTER_PREVIOUS_CHART     \`node tools/bootstrap.mjs tools/previous.ts FOLDER\` gives, and its chart: FOLDER/helm/souk
  SOUK_CLUSTER_MARIADB            a MariaDB on the cluster (mariadb.stores.svc.cluster.local)
  SOUK_CLUSTER_REDIS_URL          a Redis on the cluster
  SOUK_CLUSTER_MARIADB_IMAGE      images of stores that tests kill, which take MARIADB_ROOT_PASSWORD and redis-server's options as Docker's do
  SOUK_CLUSTER_REDIS_IMAGE        (localhost/mariadb:10.11, localhost/redis:7.0)`;

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { grep: { type: "string" }, help: { type: "boolean", default: false } } });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const seen = await run("kubectl", ["get", "namespaces", "--request-timeout=10s"]);
  if (seen.code !== 0) throw new Usage(`there is no cluster to be seen: ${seen.output.trim().split("\n").at(-1)}`);
  const files = globSync("tests/cluster/*.cluster.ts", { cwd: root }).sort();
  const folder = mkdtempSync(path.join(tmpdir(), "souk-cluster-report-"));
  const report = path.join(folder, "report.md");
  const env = { ...process.env, SOUK_CLUSTER_REPORT: report };
  // One process for all files: some share what they installed.
  const { passed, failed, problems, failures } = await runTests({ grep: values.grep, jobs: 1, files, env });
  if (existsSync(report)) console.log(readFileSync(report, "utf8"));
  rmSync(folder, { recursive: true, force: true });
  for (const text of [...failures, ...problems]) console.log(`${text}\n`);
  console.log(`${passed} passed, ${failed + problems.length} failed`);
  process.exitCode = failed + problems.length > 0 ? 1 : 0;
}

await runCommand("npm run test:cluster", main);
