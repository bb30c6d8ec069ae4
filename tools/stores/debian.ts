// Debian's packages without installing them: apt resolves, fetches and verifies, dpkg-deb unpacks into a folder. Works without root, because
// everything that apt writes goes into a folder of our own.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

/**
 * What is unpacked: the programs and libraries. The C library is not: it has to be the one that the machine's own loader belongs to. The rest of what
 * a package depends on is there for its installation.
 */
const UNPACKED =
  /^(mariadb-server-core|mariadb-client|mariadb-client-core|redis-server|redis-tools|prometheus|chromium-headless-shell|chromium-common|zlib1g|lib(?!c6|c-|perl|pam).*)_/;
const MAX_FETCH_MS = 10 * 60_000;

/** Why packages cannot be fetched on this machine, as a sentence; undefined where they can. */
export function cannotFetch(): string | undefined {
  const has = (program: string) => spawnSync(program, ["--version"]).status === 0;
  return process.platform === "linux" && has("apt-get") && has("dpkg-deb")
    ? undefined
    : "Packages can be fetched only with apt (Debian, Ubuntu) or Homebrew (macOS).";
}

/**
 * Fetches a package with all it depends on and unpacks it into a folder, which appears by one rename. What the machine has installed does not
 * matter, and is not changed.
 *
 * @returns why not, in apt's words on one line, when it did not work
 */
export function fetchPackages(name: string, folder: string): string | undefined {
  const work = mkdtempSync(`${folder}.fetching-`);
  try {
    const problem = download(name, work);
    if (problem !== undefined) return problem;
    const archives = path.join(work, "archives");
    const root = path.join(work, "root");
    mkdirSync(root);
    for (const file of readdirSync(archives)) {
      if (!UNPACKED.test(file)) continue;
      const { status, stderr } = spawnSync("dpkg-deb", ["-x", path.join(archives, file), root], { encoding: "utf8" });
      if (status !== 0) return stderr;
    }
    renameSync(root, folder);
    return undefined;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function download(name: string, work: string): string | undefined {
  for (const part of ["archives/partial", "lists/partial", "cache"]) mkdirSync(path.join(work, part), { recursive: true });
  writeFileSync(path.join(work, "status"), "");
  const install = ["-y", "--no-install-recommends", "--download-only", "install", name];
  // The machine's own lists do where they are there and new enough.
  if (apt(work, false, install) === undefined) return undefined;
  return apt(work, true, ["update"]) ?? apt(work, true, install);
}

/** Runs apt-get on folders of our own; gives why it failed, when it did. */
function apt(work: string, ownLists: boolean, args: readonly string[]): string | undefined {
  const settings = [
    `Dir::State::status "${work}/status";`,
    `Dir::Cache "${work}/cache";`,
    `Dir::Cache::archives "${work}/archives";`,
    ...(ownLists ? [`Dir::State::lists "${work}/lists";`] : []),
    'Debug::NoLocking "true";',
    'APT::Sandbox::User "";',
    // A list that cannot be fetched is the reason; without this it is a package that apt has never heard of.
    'APT::Update::Error-Mode "any";',
    'Acquire::Retries "2";',
    'Acquire::http::Timeout "20";',
    'Acquire::https::Timeout "20";',
    // Hooks of the machine would tidy up or tell services about what does not concern them.
    "#clear APT::Update::Pre-Invoke;",
    "#clear APT::Update::Post-Invoke;",
    "#clear APT::Update::Post-Invoke-Success;",
    "#clear DPkg::Post-Invoke;",
  ];
  const file = path.join(work, "apt.conf");
  writeFileSync(file, `${settings.join("\n")}\n`);
  const { status, error, stdout, stderr } = spawnSync("apt-get", ["-q", `-c=${file}`, ...args], {
    encoding: "utf8",
    timeout: MAX_FETCH_MS,
    env: { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
  });
  if (status === 0) return undefined;
  return error?.message ?? reasonIn(`${stderr}\n${stdout}`);
}

/** The line of apt's that says the most: a file that it could not fetch, else its first error. */
function reasonIn(output: string): string {
  const lines = output.split("\n").map((line) => line.trim());
  const line = lines.find((each) => /^[EW]: Failed to fetch/.test(each)) ?? lines.find((each) => each.startsWith("E: "));
  return (line ?? lines.filter((each) => each !== "").at(-1) ?? "nothing").replace(/^[EW]: /, "").replaceAll(/\s+/g, " ");
}
