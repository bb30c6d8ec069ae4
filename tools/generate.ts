// `npm run generate`: makes gen/ from proto/. Every generator is listed here once; the check "generated" runs the same ones.

import path from "node:path";
import { root, runNode } from "./checks/run.ts";
import { writeReasons } from "./reasons.ts";

type Generator = { name: string; run(folder: string): Promise<{ code: number | undefined; output: string }> };

// Each writes its files under the given folder as it would under the root.
const generators: Generator[] = [
  { name: "buf", run: (folder) => runNode("node_modules/@bufbuild/buf/bin/buf", ["generate", "--output", folder]) },
  {
    // After buf, which empties gen/.
    name: "reasons",
    async run(folder) {
      writeReasons(path.resolve(root, folder));
      return { code: 0, output: "" };
    },
  },
];

/** The folders of the root that hold nothing but generated files. */
export const generatedFolders = ["gen"];

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
      "npm run generate: makes gen/ from proto/ and third_party/proto/ (buf.gen.yaml), and from the reasons in the code. Takes no arguments.",
    );
  } else {
    process.stdout.write(await generateInto("."));
    console.log(`generated ${generatedFolders.join(", ")}`);
  }
}
