// Where the programs of the production stores are, and the tests' browser: on this machine, or fetched into a cache of our own. No system service is
// started or touched.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { cacheFolder, exclusively } from "../bootstrap.mjs";
import { cannotFetch, fetchPackages } from "./debian.ts";

/** The oldest versions that are taken: MariaDB answers RETURNING and SKIP LOCKED, Redis XAUTOCLAIM; a client is called mariadb; pages of 2023. */
const OLDEST = { MariaDB: [10, 6], "MariaDB client": [10, 6], Redis: [6, 2], promtool: [2, 40], Chromium: [120, 0] } as const;

/** A store's server, or what talks to one. */
export interface Program {
  /** The file to run. */
  readonly file: string;
  /** Like "10.11.19". */
  readonly version: string;
  /** What to add to the environment: where a fetched program's libraries are. */
  readonly env: Readonly<Record<string, string>>;
}

/** Which of the stores. "MariaDB client" is `mariadb`, with `mariadb-dump` beside it; promtool, which tests alert rules, and Chromium or Chrome are none, but are found alike. */
export type Store = keyof typeof OLDEST;

interface Wanted {
  readonly names: readonly string[];
  /** What has to be in the same folder. */
  readonly beside?: string;
  /** Debian's package, and Homebrew's formula; a cask is a person's to install. */
  readonly debian: string;
  readonly brew: string;
  readonly isCask?: true;
  readonly version: RegExp;
}

const WANTED: Readonly<Record<Store, Wanted>> = {
  MariaDB: {
    names: ["mariadbd", "mysqld"],
    debian: "mariadb-server-core",
    brew: "mariadb",
    version: /Ver (\d+\.\d+\.\d+)-MariaDB/,
  },
  "MariaDB client": {
    names: ["mariadb"],
    beside: "mariadb-dump",
    debian: "mariadb-client",
    brew: "mariadb",
    version: /(\d+\.\d+\.\d+)-MariaDB/,
  },
  Redis: {
    names: ["redis-server"],
    debian: "redis-server",
    brew: "redis",
    version: /v=(\d+\.\d+\.\d+)/,
  },
  promtool: {
    names: ["promtool"],
    debian: "prometheus",
    brew: "prometheus",
    version: /version (\d+\.\d+\.\d+)/,
  },
  Chromium: {
    names: ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "Google Chrome", "Chromium"],
    debian: "chromium-headless-shell",
    brew: "google-chrome",
    isCask: true,
    version: /Chrom\D*(\d+\.\d+\.\d+)/,
  },
};

const TEST_VARIABLES: NonNullable<Search["variables"]> = { MariaDB: "SOUK_TEST_MYSQL_URL", Redis: "SOUK_TEST_REDIS_URL" };

const USUAL_FOLDERS = [
  "/usr/sbin",
  "/usr/local/sbin",
  "/usr/bin",
  "/usr/local/bin",
  "/opt/homebrew/opt/mariadb/bin",
  "/opt/homebrew/bin",
  "/usr/local/opt/mariadb/bin",
  "/Applications/Google Chrome.app/Contents/MacOS",
  "/Applications/Chromium.app/Contents/MacOS",
];

/** A sentence for the person at the terminal: what is missing and what to do. */
export class StoresMissing extends Error {
  override readonly name = "StoresMissing";
}

/** How to look. */
export interface Search {
  /** Folders of the machine to look in; PATH and the usual ones unless given. */
  readonly folders?: readonly string[];
  /** Where what is fetched is kept; the user's cache unless given. */
  readonly cache?: string;
  /** The variables that name servers of one's own instead; those of the tests unless given. */
  readonly variables?: Readonly<Partial<Record<Store, string>>>;
  /** Tells a person about what takes long. */
  readonly say?: (sentence: string) => void;
}

/** Where what was fetched and made once is kept. */
export function storesCache(): string {
  return path.join(cacheFolder(), "stores");
}

/** Says a sentence on standard error. */
export function sayOnError(sentence: string): void {
  process.stderr.write(`souk: ${sentence}\n`);
}

/**
 * Finds a store's program on this machine, else fetches it (Debian and Ubuntu through apt, macOS through Homebrew). Blocks while it does, once
 * on a machine. Any number of processes may call it at once, and one that is interrupted leaves nothing that is taken for whole.
 *
 * @throws StoresMissing one sentence that says what to install, or which variable names a server of one's own.
 */
export function findProgram(store: Store, search: Search = {}): Program {
  const folders = search.folders ?? [...(process.env.PATH ?? "").split(path.delimiter), ...USUAL_FOLDERS];
  const found = onMachine(store, folders);
  if (found !== undefined) return found;
  const { cache = storesCache(), say = sayOnError, variables = TEST_VARIABLES } = search;
  const advice = adviceOn(store, variables[store]);
  if (process.platform === "darwin") return fromHomebrew(store, say, advice);
  const impossible = cannotFetch();
  if (impossible !== undefined) throw new StoresMissing(`${impossible} ${advice}`);
  const folder = path.join(cache, `${store.toLowerCase().replace(" ", "-")}-${machineName()}`);
  return (
    inFolder(store, folder) ??
    exclusively(`${folder}.lock`, () => inFolder(store, folder) ?? fetched({ store, folder, say, advice }))
  );
}

interface Fetching {
  readonly store: Store;
  readonly folder: string;
  readonly say: (sentence: string) => void;
  /** What a person can do instead. */
  readonly advice: string;
}

function fetched({ store, folder, say, advice }: Fetching): Program {
  say(`${store} is not on this machine; fetching it through apt into ${folder} (once)`);
  mkdirSync(path.dirname(folder), { recursive: true });
  rmSync(folder, { recursive: true, force: true });
  removeLeft(path.dirname(folder), path.basename(folder), ".fetching-");
  const problem = fetchPackages(WANTED[store].debian, folder);
  if (problem !== undefined) throw new StoresMissing(`${store} could not be fetched: apt says "${problem}". ${advice}`);
  const program = inFolder(store, folder);
  if (program === undefined) throw new StoresMissing(`The ${store} that apt has is too old or does not run here. ${advice}`);
  return program;
}

/** Removes what an interrupted one left behind; the caller has the lock, so nobody works on it. */
export function removeLeft(folder: string, name: string, mark: string): void {
  for (const each of readdirSync(folder)) {
    if (each.startsWith(name) && each.includes(mark)) rmSync(path.join(folder, each), { recursive: true, force: true });
  }
}

function fromHomebrew(store: Store, say: Fetching["say"], advice: string): Program {
  const { brew, isCask } = WANTED[store];
  if (isCask) throw new StoresMissing(`${store} is not on this machine. ${advice}`);
  say(`${store} is not on this machine; running brew install ${brew} (once)`);
  const installed = spawnSync("brew", ["install", "--quiet", brew], {
    encoding: "utf8",
    env: { ...process.env, HOMEBREW_NO_AUTO_UPDATE: "1" },
  });
  const prefix = spawnSync("brew", ["--prefix", brew], { encoding: "utf8" }).stdout?.trim();
  const program = installed.status === 0 && prefix ? onMachine(store, [path.join(prefix, "bin")]) : undefined;
  if (program === undefined) throw new StoresMissing(`${installed.stderr ?? ""}\nHomebrew gave no ${store}. ${advice}`);
  return program;
}

function adviceOn(store: Store, variable: string | undefined): string {
  const { debian, brew, isCask } = WANTED[store];
  const [major, minor] = OLDEST[store];
  const instead = variable === undefined ? "" : `, or name a server of your own in ${variable}`;
  return `Install ${store} ${major}.${minor} or newer (on Debian: apt install ${debian}; on macOS: brew install ${isCask ? "--cask " : ""}${brew})${instead}.`;
}

function onMachine(store: Store, folders: readonly string[]): Program | undefined {
  for (const folder of folders) {
    for (const name of WANTED[store].names) {
      const program = tried(store, path.join(folder, name), {});
      if (program !== undefined) return program;
    }
  }
  return undefined;
}

/** The program in a folder into which packages were unpacked. */
function inFolder(store: Store, folder: string): Program | undefined {
  const libraries = ["usr/lib", "lib"].flatMap((lib) => {
    const multiarch = process.arch === "arm64" ? "aarch64-linux-gnu" : "x86_64-linux-gnu";
    return [path.join(folder, lib, multiarch), path.join(folder, lib, multiarch, "pulseaudio"), path.join(folder, lib)];
  });
  const env = { LD_LIBRARY_PATH: libraries.filter((each) => existsSync(each)).join(":") };
  for (const bin of ["usr/sbin", "usr/bin", "usr/lib/chromium"]) {
    for (const name of WANTED[store].names) {
      const program = tried(store, path.join(folder, bin, name), env);
      if (program !== undefined) return program;
    }
  }
  return undefined;
}

/** The file if it runs, is the store and new enough. MySQL's mysqld is not MariaDB: it is set up in another way. */
function tried(store: Store, file: string, env: Readonly<Record<string, string>>): Program | undefined {
  const { beside } = WANTED[store];
  if (!existsSync(file) || (beside !== undefined && !existsSync(path.join(path.dirname(file), beside)))) return undefined;
  const args = store.startsWith("MariaDB") ? ["--no-defaults", "--version"] : ["--version"];
  const { stdout, status } = spawnSync(file, args, { encoding: "utf8", env: { ...process.env, ...env } });
  const version = status === 0 ? WANTED[store].version.exec(stdout)?.[1] : undefined;
  if (version === undefined) return undefined;
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [oldestMajor, oldestMinor] = OLDEST[store];
  if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) return undefined;
  return { file, version, env };
}

/** Names what a fetched program runs on, like "debian-12-x64". */
function machineName(): string {
  const { stdout } = spawnSync("sh", ["-c", '. /etc/os-release && echo "$ID-$VERSION_ID"'], { encoding: "utf8" });
  return `${stdout.trim() || "linux"}-${process.arch}`;
}
