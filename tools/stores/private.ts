// What private servers have in common: a free port, waiting until they answer, being ended.

import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { Kept } from "./keeper.ts";

const MAX_START_MS = 60_000;
const MAX_PORTS_TRIED = 5;
const PORT_MIN = 20_000;
const PORT_MAX = 32_000;

/** How to start a private server. */
export interface ServerOptions {
  /** Where its data is and stays. Unless given, a temporary folder, removed when the server ends. */
  readonly folder?: string;
  /** The loopback port; a free one unless given. */
  readonly port?: number;
}

/** A private server, on the loopback interface. It ends with this process at the latest. */
export interface PrivateServer {
  readonly url: string;
  readonly port: number;
  /** The server's own process, for tests that kill it. */
  readonly pid: number;
  /** Resolves when it has ended, by itself or not. */
  readonly exited: Promise<void>;
  stop(): Promise<void>;
}

/** A server that was started and does not answer yet. */
export interface Starting {
  readonly kept: Kept;
  readonly url: string;
  isReady(): Promise<boolean>;
}

/**
 * Starts a server on a free port and waits until it answers. Another process may take the port in between: then it is tried again on another.
 *
 * @throws Error with the end of the server's log, when it does not start.
 */
export async function startOn(
  { name, port }: { name: string; port: number | undefined },
  start: (port: number) => Promise<Starting>,
): Promise<PrivateServer> {
  for (let attempt = 1; ; attempt += 1) {
    const chosen = port ?? (await freePort());
    const { kept, url, isReady } = await start(chosen);
    const end = Date.now() + MAX_START_MS;
    while (!kept.ended() && Date.now() < end) {
      if (await isReady()) return { url, port: chosen, pid: kept.pid, exited: kept.exited, stop: kept.stop };
      await sleep(20);
    }
    const said = kept.said();
    await kept.stop();
    const isTaken = /address already in use|bind on TCP\/IP port|Failed listening on port/i.test(said);
    if (port !== undefined || !isTaken || attempt === MAX_PORTS_TRIED)
      throw new Error(`The private ${name} did not start:\n${said}`);
  }
}

/**
 * A loopback port that nobody listens on, for now. From below those that systems give to outgoing connections: one of these would take the port of
 * a server that is down for a moment.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(PORT_MIN, PORT_MAX);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen({ port, host: "127.0.0.1", exclusive: true }, () => resolve(true));
    });
    if (!free) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}
