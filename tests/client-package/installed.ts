import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../../tools/checks/run.ts";
import { type PackedClient, packClient } from "../../tools/pack-client.ts";
import { temporaryFolder } from "../support/database.ts";
import { ROOT } from "../support/process.ts";

/** A project of somebody else's that has the packed client installed. */
export interface InstalledClient {
  /** The project's folder. */
  readonly path: string;
  readonly packed: PackedClient;
  /** Runs a program of the project on this Node; gives what it printed as JSON. */
  run(file: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<unknown>;
  /** Gives the compiler's complaints. */
  compile(files: readonly string[], options: object): Promise<string>;
  remove(): void;
}

/**
 * Packs the client and installs it in an empty project, with other packages in the versions that this repository has: a new release of theirs is
 * no failure of ours.
 */
export async function installClient(...others: readonly string[]): Promise<InstalledClient> {
  const folder = temporaryFolder();
  const at = (name: string) => join(folder.path, name);
  try {
    const packed = await packClient(at("packed"));
    cpSync(join(ROOT, "tests/client-package/project"), at("project"), { recursive: true });
    writeFileSync(at("project/package.json"), JSON.stringify({ type: "module", private: true }));
    const options = [
      "--prefix",
      at("project"),
      "--prefer-offline",
      "--no-audit",
      "--no-fund",
      "--ignore-scripts",
      "--loglevel=error",
    ];
    await finished("npm", ["install", ...options, packed.tarball, ...others.map(atOurVersion)]);
    return {
      path: at("project"),
      packed,
      async run(file, args, env) {
        return JSON.parse(await finished(process.execPath, [at(`project/${file}`), ...args], env));
      },
      async compile(files, options) {
        const config = {
          compilerOptions: { strict: true, skipLibCheck: false, noEmit: true, target: "es2024", ...options },
          files,
        };
        writeFileSync(at("project/tsconfig.json"), JSON.stringify(config));
        const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
        const { output } = await run(process.execPath, [tsc, "-p", at("project"), "--pretty", "false"]);
        return output;
      },
      remove: folder.remove,
    };
  } catch (error) {
    folder.remove();
    throw error;
  }
}

/** The code in the package's README that is marked with a word: "```ts browser". */
export function readmeCode(mark: string): string {
  const readme = readFileSync(join(ROOT, "client/README.md"), "utf8");
  const code = readme.match(new RegExp(`^\`\`\`\\w+ ${mark}\\n(.*?)^\`\`\`$`, "ms"))?.[1];
  if (code === undefined) throw new Error(`The README of the client shows no code for ${mark}.`);
  return code;
}

function atOurVersion(name: string): string {
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  return `${name}@${dependencies[name] ?? devDependencies[name]}`;
}

async function finished(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const { code, output } = await run(program, args, { env: { ...process.env, NODE_OPTIONS: "", ...env } });
  if (code !== 0) throw new Error(`${program} ${args.join(" ")} ended with ${code}:\n${output}`);
  return output;
}
