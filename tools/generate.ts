// `npm run generate`: makes gen/ from proto/. Every generator is listed here once; the check "generated" runs the same ones.

import { runNode } from "./checks/run.ts";

type Generator = { name: string; run(folder: string): Promise<{ code: number | undefined; output: string }> };

// Each writes its files under the given folder as it would under the root.
const generators: Generator[] = [
  { name: "buf", run: (folder) => runNode("node_modules/@bufbuild/buf/bin/buf", ["generate", "--output", folder]) },
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
    console.log("npm run generate: makes gen/ from proto/ and third_party/proto/ (buf.gen.yaml). Takes no arguments.");
  } else {
    process.stdout.write(await generateInto("."));
    console.log(`generated ${generatedFolders.join(", ")}`);
  }
}
