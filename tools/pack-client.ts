// `npm run pack:client`: the package that callers install, and the contract as a descriptor set for other languages.

import { cpSync, globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { type Finished, root, run, runNode } from "./checks/run.ts";
import { runTool, UsageError } from "./identity.ts";

const HELP = `npm run pack:client [-- --out FOLDER]

Writes into dist/, or FOLDER:
  souk-client-<version>.tgz   @souk/client: messages, services and helpers in JavaScript with their types, for browsers and Node
  souk.binpb                  the whole contract with its comments, a google.protobuf.FileDescriptorSet for any other language
  client/                     what is in the package, unpacked

Packing the same sources again writes the same bytes. Install the package by its file: npm install ./dist/souk-client-<version>.tgz`;

/** What is written where. */
export interface PackedClient {
  readonly tarball: string;
  readonly descriptors: string;
  /** The package unpacked. */
  readonly folder: string;
}

const packageJson = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
/** What has to be there once in a project, because messages and errors are told by it. npm installs them along. */
const PEERS = ["@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"];

/** Makes the package and the descriptor set in a folder. Throws with what a program printed when it fails. */
export async function packClient(out: string): Promise<PackedClient> {
  // Within the repository, whose packages the compiler has to find, and not where another run works.
  const dist = path.join(root, "dist");
  mkdirSync(dist, { recursive: true });
  const work = mkdtempSync(path.join(dist, "packing-"));
  try {
    const made = path.join(work, "client");
    await build(made);
    const tarball = await pack(made, work);
    const descriptors = path.join(work, "souk.binpb");
    await succeeds("buf", buf("build", "--as-file-descriptor-set", "--output", descriptors));
    const folder = path.join(out, "client");
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(out, { recursive: true });
    cpSync(made, folder, { recursive: true });
    const [to, descriptorsTo] = [tarball, descriptors].map((file) => path.join(out, path.basename(file))) as [string, string];
    cpSync(tarball, to);
    cpSync(descriptors, descriptorsTo);
    return { tarball: to, descriptors: descriptorsTo, folder };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Fills a folder with what the package consists of. */
async function build(folder: string): Promise<void> {
  await succeeds("buf", buf("generate", "--template", "client/buf.gen.yaml", "--output", folder));
  // Events travel between services only.
  for (const file of globSync("gen/marketplace/*/*/{event,events}_pb.*", { cwd: folder })) rmSync(path.join(folder, file));
  await compile(folder);
  cpSync(path.join(root, "LICENSE"), path.join(folder, "LICENSE"));
  cpSync(path.join(root, "client/README.md"), path.join(folder, "README.md"));
  writeFileSync(path.join(folder, "package.json"), `${JSON.stringify(manifest(folder), undefined, 2)}\n`);
}

const buf = (...args: string[]) => runNode("node_modules/@bufbuild/buf/bin/buf", args);

async function succeeds(name: string, finished: Promise<Finished>): Promise<void> {
  const { code, output } = await finished;
  if (code !== 0) throw new UsageError(`${name} failed:\n${output.trim()}`);
}

/** Compiles client/ and what it imports by "#…", which means something in this repository only: the package has it beside the rest. */
async function compile(folder: string): Promise<void> {
  const sources = readdirSync(path.join(root, "client")).filter((name) => name.endsWith(".ts"));
  const placed = new Set<string>();
  for (const name of sources) place(path.join("client", name), name, folder, placed);
  const settings = {
    compilerOptions: {
      target: "es2023",
      lib: ["es2023", "esnext.disposable", "dom", "dom.iterable"],
      types: [],
      module: "nodenext",
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      verbatimModuleSyntax: true,
      declaration: true,
      newLine: "lf",
    },
    include: ["**/*.ts"],
  };
  const project = path.join(folder, "tsconfig.json");
  writeFileSync(project, JSON.stringify(settings));
  writeFileSync(path.join(folder, "package.json"), JSON.stringify({ type: "module" }));
  await succeeds("tsc", runNode("node_modules/typescript/bin/tsc", ["-p", project]));
  for (const file of placed) rmSync(path.join(folder, file));
  rmSync(project);
}

/** Puts a source at its place in the package, and all that it imports by "#…". */
function place(source: string, target: string, folder: string, placed: Set<string>): void {
  if (placed.has(target)) return;
  placed.add(target);
  const up = "../".repeat(target.split("/").length - 1) || "./";
  const text = readFileSync(path.join(root, source), "utf8").replaceAll(
    /(from ")(#|\.\/)([\w./-]+)\.ts(")/g,
    (_, before: string, kind: string, name: string, after: string) => {
      if (kind === "./") return `${before}./${name}.js${after}`;
      if (!name.endsWith("_pb")) place(`${name}.ts`, `${name}.ts`, folder, placed);
      return `${before}${up}${name}.js${after}`;
    },
  );
  mkdirSync(path.dirname(path.join(folder, target)), { recursive: true });
  writeFileSync(path.join(folder, target), text);
}

/** The package's package.json: one entry for the helpers, one for each context and version of the contract. */
function manifest(folder: string): object {
  const entry = (file: string) => ({ types: `./${file}.d.ts`, default: `./${file}.js` });
  const contexts = globSync("gen/marketplace/*/v*/", { cwd: folder })
    .map((each) => each.split(path.sep).slice(2, 4) as [string, string])
    .map(([context, version]) => ({ name: `./${context}/${version}`, file: `gen/marketplace/${context}/${version}/${context}_pb` }))
    .filter(({ file }) => statSync(path.join(folder, `${file}.js`), { throwIfNoEntry: false }) !== undefined)
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  const known: Record<string, string> = { ...packageJson.dependencies, ...packageJson.devDependencies };
  return {
    name: "@souk/client",
    version: packageJson.version,
    description:
      "Typed calls to a Souk marketplace from browsers and Node: every message and service, exact money, reasons of errors.",
    license: packageJson.license,
    type: "module",
    sideEffects: false,
    engines: packageJson.engines,
    exports: {
      ".": entry("index"),
      ...Object.fromEntries(contexts.map(({ name, file }) => [name, entry(file)])),
      "./package.json": "./package.json",
    },
    peerDependencies: Object.fromEntries(PEERS.map((name) => [name, `^${known[name]}`])),
  };
}

/** Packs by npm, whose archives carry no times and no owners. */
async function pack(folder: string, into: string): Promise<string> {
  await succeeds("npm pack", run("npm", ["pack", folder, "--pack-destination", into, "--ignore-scripts", "--loglevel=error"]));
  const [name] = globSync("*.tgz", { cwd: into });
  if (name === undefined) throw new UsageError("npm pack wrote nothing.");
  return path.join(into, name);
}

if (import.meta.main) {
  await runTool("", async () => {
    let values: { out?: string; help?: boolean };
    try {
      values = parseArgs({ options: { out: { type: "string" }, help: { type: "boolean", short: "h" } } }).values;
    } catch (error) {
      throw new UsageError(`${(error as Error).message}\n\n${HELP}`);
    }
    if (values.help) return console.log(HELP);
    const out = path.resolve(values.out ?? path.join(root, "dist"));
    try {
      mkdirSync(out, { recursive: true });
    } catch (error) {
      throw new UsageError(`${out} cannot be a folder: ${(error as Error).message}`);
    }
    const { tarball, descriptors } = await packClient(out);
    for (const file of [tarball, descriptors])
      console.log(`${path.relative(process.cwd(), file)}  ${Math.ceil(statSync(file).size / 1024)} KiB`);
    console.log(`Install it with: npm install ${tarball}`);
  });
}
