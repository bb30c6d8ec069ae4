import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findProgram } from "../../tools/stores/programs.ts";

/** Alone with the pages of the test: it asks nobody for updates, and runs as root in a container. */
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--remote-debugging-port=0",
];

/** What the browser told about a page, such as "Network.requestWillBeSent". */
export interface Told {
  readonly method: string;
  // biome-ignore lint/suspicious/noExplicitAny: each of the browser's events has a shape of its own, and a test reads a field or two.
  readonly params: any;
}

/** A page that is shown. */
export interface Page {
  /** All that was told about it so far. */
  readonly told: readonly Told[];
  /** Runs an expression in the page, awaits it, and gives its value as JSON would. Fails with what it threw. */
  run(expression: string): Promise<unknown>;
}

/** A browser of the test's own. */
export interface Browser {
  /** Opens a page and waits until it is loaded. */
  open(url: string): Promise<Page>;
  close(): Promise<void>;
}

/** Starts a Chromium with a new profile, found on this machine or fetched. It ends with `close`. */
export async function startBrowser(): Promise<Browser> {
  const { file, env } = findProgram("Chromium");
  const profile = mkdtempSync(join(tmpdir(), "souk-browser-"));
  const child = spawn(file, [...FLAGS, `--user-data-dir=${profile}`, "about:blank"], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const exited = once(child, "exit");
  const end = async () => {
    child.kill("SIGKILL");
    await exited;
    rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
  };
  try {
    const tools = await connect(await addressOf(child));
    return {
      open: (url) => openPage(tools, url),
      async close() {
        tools.close();
        await end();
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

/** Where it listens, which it says on standard error. */
function addressOf(child: ChildProcess): Promise<string> {
  let output = "";
  return new Promise((resolve, reject) => {
    child.stderr?.on("data", (chunk) => {
      output += chunk;
      const found = /DevTools listening on (ws:\S+)/.exec(output)?.[1];
      if (found !== undefined) resolve(found);
    });
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`The browser ended with ${code}:\n${output}`)));
  });
}

type Send = (method: string, params: object, sessionId?: string) => Promise<Record<string, unknown>>;

interface Tools {
  readonly send: Send;
  /** Hears what is told about a session. */
  listen(sessionId: string, listener: (told: Told) => void): void;
  close(): void;
}

/** The DevTools protocol: commands with an id, answers under it, and events. */
async function connect(url: string): Promise<Tools> {
  const socket = new WebSocket(url);
  const waiting = new Map<number, { resolve(result: Record<string, unknown>): void; reject(error: Error): void }>();
  const listeners = new Map<string, (told: Told) => void>();
  let last = 0;
  socket.addEventListener("message", ({ data }) => {
    const { id, error, result, sessionId, ...told } = JSON.parse(String(data));
    if (id === undefined) return listeners.get(sessionId)?.(told);
    const call = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) call?.resolve(result);
    else call?.reject(new Error(`${error.message} ${error.data ?? ""}`));
  });
  socket.addEventListener("close", () => {
    for (const { reject } of waiting.values()) reject(new Error("The browser is gone."));
  });
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve);
    socket.addEventListener("error", () => reject(new Error(`The browser does not answer at ${url}.`)));
  });
  return {
    send(method, params, sessionId) {
      last++;
      socket.send(JSON.stringify({ id: last, method, params, sessionId }));
      return new Promise((resolve, reject) => waiting.set(last, { resolve, reject }));
    },
    listen: (sessionId, listener) => listeners.set(sessionId, listener),
    close: () => socket.close(),
  };
}

async function openPage({ send, listen }: Tools, url: string): Promise<Page> {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const attached = await send("Target.attachToTarget", { targetId, flatten: true });
  const sessionId = String(attached.sessionId);
  const told: Told[] = [];
  const loaded = new Promise<void>((resolve) => {
    listen(sessionId, (each) => {
      told.push(each);
      if (each.method === "Page.loadEventFired") resolve();
    });
  });
  for (const domain of ["Page", "Runtime", "Network", "Log"]) await send(`${domain}.enable`, {}, sessionId);
  await send("Page.navigate", { url }, sessionId);
  await loaded;
  return {
    told,
    async run(expression) {
      const wanted = { expression, awaitPromise: true, returnByValue: true };
      const { result, exceptionDetails } = (await send("Runtime.evaluate", wanted, sessionId)) as {
        result: { value?: unknown };
        exceptionDetails?: { text: string; exception?: { description?: string } };
      };
      if (exceptionDetails === undefined) return result.value;
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    },
  };
}
