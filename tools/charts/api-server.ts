// What an API server says to rendered charts: `npm run test:charts -- --api-server`. It knows the rules that stand in no schema: CEL, defaults, admission.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseAllDocuments } from "yaml";
import { root, run } from "../checks/run.ts";

/** What came of one rendering. */
export interface ServerOutcome {
  readonly what: string;
  readonly problem: string | undefined;
}

/** Has the server of the current kubeconfig look at renderings without keeping anything; the namespace they are for is made for that time if it is not there. */
export async function askServer(
  goldens: readonly string[],
  namespace: string,
  say: (outcome: ServerOutcome) => void,
): Promise<void> {
  const served = await run("kubectl", ["api-resources", "--no-headers"]);
  if (served.code !== 0) throw new Error(`there is no API server to be asked: ${served.output.trim()}`);
  const kinds = new Set(served.output.split("\n").map((line) => line.trim().split(/\s+/).at(-1)));
  const made = (await run("kubectl", ["create", "namespace", namespace])).code === 0;
  const folder = mkdtempSync(path.join(tmpdir(), "souk-api-server-"));
  try {
    for (const golden of goldens) {
      const documents = parseAllDocuments(readFileSync(path.join(root, golden), "utf8"));
      const resources = (Array.isArray(documents) ? documents : []).map((each) => each.toJS() as { kind: string } | null);
      const known = resources.filter((each) => each !== null && kinds.has(each.kind));
      const unknown = [...new Set(resources.flatMap((each) => (each === null || kinds.has(each.kind) ? [] : [each.kind])))];
      const file = path.join(folder, "resources.json");
      writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items: known }));
      const { code, output } = await run("kubectl", ["apply", "--dry-run=server", "--validate=strict", "-f", file]);
      const but = unknown.length > 0 ? `, but for ${unknown.join(", ")}, which it does not serve` : "";
      say({
        what: `${golden} is taken by the API server: ${known.length} resources${but}`,
        problem: code === 0 ? undefined : output.replace(/^.*\(server dry run\)\n/gm, ""),
      });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
    if (made) await run("kubectl", ["delete", "namespace", namespace, "--wait=false"]);
  }
}
