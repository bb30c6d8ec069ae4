import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { findProgram } from "../../tools/stores/programs.ts";
import { pathWithCurl } from "../support/curl.ts";
import { ROOT } from "../support/process.ts";

/** A section of docs/operations.md by its heading, up to the next heading of any level. */
function section(heading: string): string {
  const sections = readFileSync(join(ROOT, "docs/operations.md"), "utf8").split(/^(?=#)/m);
  const found = sections.find((each) => each.startsWith(`${heading}\n`));
  if (found === undefined) throw new Error(`docs/operations.md has no section "${heading}"`);
  return found;
}

/** The lines of shell in a section, block by block. */
export function shellOf(heading: string): string[] {
  return [...section(heading).matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1] as string);
}

/** The sentence that a section quotes as a program's answer. */
export function quotedIn(heading: string): string {
  const sentence = /^> (.*)$/m.exec(section(heading))?.[1];
  if (sentence === undefined) throw new Error(`"${heading}" quotes nothing`);
  return sentence;
}

/** The search path with MariaDB's client and this Node first, and a curl; a client that was fetched is told where its libraries are. */
export function pathWithClient(folder: string): string {
  const { file, env } = findProgram("MariaDB client");
  const bin = join(folder, "bin");
  mkdirSync(bin);
  const settings = Object.entries(env).map(([name, value]) => `${name}='${value}'`);
  for (const name of ["mariadb", "mariadb-dump"]) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${settings.join(" ")} exec '${join(dirname(file), name)}' "$@"\n`);
    chmodSync(join(bin, name), 0o755);
  }
  return [bin, pathWithCurl(folder)].join(delimiter);
}

/** A home folder whose .my.cnf leads the client to a server as its administrator. */
export function homeFor(folder: string, name: string, adminUrl: string): string {
  const { hostname, port, username, password } = new URL(adminUrl);
  const home = join(folder, name);
  mkdirSync(home);
  const lines = ["[client]", `host=${hostname}`, `port=${port}`, `user=${username}`, `password=${password}`, ""];
  writeFileSync(join(home, ".my.cnf"), lines.join("\n"), { mode: 0o600 });
  return home;
}
