// `npm run generate`: makes gen/, and what is generated of mesh/ and docs/, from proto/ and from the tests. Every generator is listed here once; the check "generated" runs the same ones.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { READINESS_PAGE, readinessPage } from "../tests/readiness/page.ts";
import { REFERENCE, writeChartReference } from "./chart-reference.ts";
import { root, runNode } from "./checks/run.ts";
import { writeReasons } from "./reasons.ts";
import { TERRAFORM_REFERENCE, writeTerraformReference } from "./terraform-reference.ts";

const BUF = "node_modules/@bufbuild/buf/bin/buf";

type Generator = { name: string; run(folder: string): Promise<{ code: number | undefined; output: string }> };

// Each writes its files under the given folder as it would under the root.
const generators: Generator[] = [
  { name: "buf", run: (folder) => runNode(BUF, ["generate", "--output", folder]) },
  {
    // After buf, which empties gen/.
    name: "reasons",
    async run(folder) {
      writeReasons(path.resolve(root, folder));
      return { code: 0, output: "" };
    },
  },
  {
    name: "mesh",
    run(folder) {
      // buf would empty all of mesh/.
      for (const each of ["mesh/generated", "docs/api"]) rmSync(path.resolve(root, folder, each), { recursive: true, force: true });
      return runNode(BUF, ["generate", "--template", "mesh/buf.gen.yaml", "--output", folder]);
    },
  },
  {
    name: "the chart's reference",
    async run(folder) {
      writeChartReference(path.resolve(root, folder));
      return { code: 0, output: "" };
    },
  },
  {
    name: "the Terraform module's reference",
    async run(folder) {
      writeTerraformReference(path.resolve(root, folder));
      return { code: 0, output: "" };
    },
  },
  {
    name: "readiness",
    async run(folder) {
      const page = path.resolve(root, folder, READINESS_PAGE);
      mkdirSync(path.dirname(page), { recursive: true });
      writeFileSync(page, readinessPage());
      return { code: 0, output: "" };
    },
  },
  {
    name: "buf for the conformance suite",
    run: (folder) => runNode(BUF, ["generate", "--template", "tests/conformance/buf.gen.yaml", "--output", folder]),
  },
];

/** The files of the root that are generated, and the folders that hold nothing else. */
export const generated = [
  "gen",
  "tests/conformance/gen",
  "mesh/generated",
  "mesh/values.schema.json",
  "docs/api",
  REFERENCE,
  TERRAFORM_REFERENCE,
  READINESS_PAGE,
];

/** Runs all generators with their output under `folder`. Returns what they printed; throws with it when one fails. */
export async function generateInto(folder: string): Promise<string> {
  let printed = "";
  for (const { name, run } of generators) {
    const { code, output } = await run(folder);
    if (code !== 0) throw new Error(`${name}: ${output}`);
    printed += output;
  }
  return printed;
}

if (import.meta.main) {
  if (process.argv.includes("--help")) {
    console.log(
      "npm run generate: makes gen/ from proto/ and third_party/proto/ (buf.gen.yaml) and from the reasons in the code, and what is generated of mesh/ and docs/ (mesh/buf.gen.yaml), the tables of helm/souk/README.md from the charts' values and those of terraform/README.md from the module, tests/conformance/gen/ from third_party/conformance/, and docs/production-readiness.md from tests/readiness/checklist.ts. Takes no arguments.",
    );
  } else {
    process.stdout.write(await generateInto("."));
    console.log(`generated ${generated.join(", ")}`);
  }
}
