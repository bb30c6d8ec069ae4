// Runs a server that never outlives the process that started it, however that ends.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import type { Socket } from "node:net";

/**
 * The keeper between us and the server. It ends the server when its standard input ends: that happens when we say so, and when we die by any means,
 * SIGKILL included. In a session of its own, so that neither Ctrl-C nor a signal to our group reaches it or the server.
 */
const KEEPER = `
signal=$1 grace=$2 remove=$3
shift 3
exec 3<&0 </dev/null
"$@" 3<&- >&2 &
server=$!
echo "$server"
exec >&2
{
  while read -r _ <&3; do :; done
  kill "-$signal" "$server"
  while [ "$grace" -gt 0 ] && kill -0 "$server"; do sleep 1; grace=$((grace - 1)); done
  kill -KILL "$server"
} 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"
kill -KILL "$watcher"
[ -z "$remove" ] || rm -rf -- "$remove"
`;

const MAX_SAID_BYTES = 4_096;

/** How to run a server. */
export interface Keeping {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** The file its output is added to. */
  readonly log: string;
  /** The folder it runs in. */
  readonly cwd: string;
  /** A folder to remove once it has ended. */
  readonly remove?: string | undefined;
  /** How long it may take to end in an orderly way; 0 kills it at once. In seconds. */
  readonly graceSeconds: number;
}

/** A server that runs. */
export interface Kept {
  /** The server's own process. */
  readonly pid: number;
  /** Whether it has ended, by itself or not. */
  ended(): boolean;
  /** Resolves when it has ended and its folder is removed. */
  readonly exited: Promise<void>;
  /** The end of what it has printed, even when its folder is gone. Not after stop. */
  said(): string;
  /** Ends it; resolves when it has. */
  stop(): Promise<void>;
}

/** Starts a server under a keeper. It does not hold this process's event loop open. */
export async function keep({ file, args, env, log, cwd, remove = "", graceSeconds }: Keeping): Promise<Kept> {
  const output = openSync(log, "a+", 0o600);
  const signal = graceSeconds > 0 ? "TERM" : "KILL";
  const child = spawn("/bin/sh", ["-c", KEEPER, "keeper", signal, String(graceSeconds), remove, file, ...args], {
    cwd,
    env: { ...process.env, ...env },
    detached: true,
    stdio: ["pipe", "pipe", output],
  });
  const exited = once(child, "exit").then(() => undefined);
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error("a child without pipes");
  stdin.on("error", () => undefined);
  const first = await Promise.race([once(stdout.setEncoding("utf8"), "data"), exited]);
  const pid = Number(first?.[0]);
  stdout.destroy();
  child.unref();
  (stdin as Socket).unref();
  let stopped: Promise<void> | undefined;
  const end = async () => {
    child.ref();
    stdin.end();
    await exited;
    closeSync(output);
  };
  return {
    pid,
    ended: () => child.exitCode !== null || child.signalCode !== null,
    exited,
    said: () => endOf(output),
    stop: () => {
      stopped ??= end();
      return stopped;
    },
  };
}

function endOf(file: number): string {
  const { size } = fstatSync(file);
  const buffer = Buffer.alloc(Math.min(size, MAX_SAID_BYTES));
  const read = readSync(file, buffer, 0, buffer.length, size - buffer.length);
  return buffer.toString("utf8", 0, read);
}
