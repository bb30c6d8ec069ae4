import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { createConnection } from "node:net";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { inputs, validCall } from "./inputs.ts";
import type { Begun, Usage } from "./target.ts";

const ROUNDS = Number(process.env.SOUK_PROOF_ROUNDS ?? 1);
/** Inputs of each round. */
const INPUTS = 100;
const PATIENCE_MS = 60_000 * (1 + ROUNDS);
/** How long an answer is waited for, and how long for more of it, in ms. */
const ANSWER_MS = 80;
const MORE_MS = 10;
/** How much more of the processor an input may take than a valid call of its size. */
const COST_MAX = 20;
const GROWTH_MAX_BYTES = 64 * 1024 * 1024;
const ALIVE_EVERY = 20;

describe("a server that is sent anything", function () {
  this.timeout(PATIENCE_MS);
  let target: Target;
  before(async () => {
    target = await Target.start();
  });
  after(() => target.stop());

  it("lives, answers valid calls, keeps its memory, and works at no input longer than at 20 valid calls of its size", async () => {
    for (let warm = 0; warm < 50; warm++) await target.send(validCall(warm % 2 === 0 ? 1 : 2, 200 * warm));
    const costs = await Costs.of(target);
    const before = await target.usage("memory");
    let sent = 0;
    await fc.assert(
      fc.asyncProperty(inputs(target.token), async (input) => {
        if (sent++ % ALIVE_EVERY === 0) await target.assertAlive();
        const allowedUs = COST_MAX * costs.ofSize(input.length);
        let least = Number.POSITIVE_INFINITY;
        // A collection of garbage may fall on any input; what an input costs, it costs each time.
        for (let attempt = 0; attempt < 5 && least > allowedUs; attempt++) least = Math.min(least, await target.cost(input));
        assert.ok(
          least <= allowedUs,
          `${input.length} bytes cost ${least} µs; a valid call of that size ${allowedUs / COST_MAX} µs`,
        );
      }),
      { numRuns: ROUNDS * INPUTS, endOnFailure: false },
    );
    await target.assertAlive();
    const grown = (await target.usage("memory")).memoryBytes - before.memoryBytes;
    assert.ok(grown < GROWTH_MAX_BYTES, `${Math.round(grown / 2 ** 20)} MiB more than before`);
  });
});

/** What valid calls cost, by their size. */
class Costs {
  readonly #fixedUs: number;
  readonly #perByteUs: number;

  constructor(fixedUs: number, perByteUs: number) {
    this.#fixedUs = fixedUs;
    this.#perByteUs = perByteUs;
  }

  static async of(target: Target): Promise<Costs> {
    const medianOf = async (size: number) => {
      const all: number[] = [];
      for (let turn = 0; turn < 15; turn++) all.push(await target.cost(validCall(turn % 2 === 0 ? 1 : 2, size)));
      return all.sort((a, b) => a - b)[all.length >> 1] as number;
    };
    const [small, large] = [await medianOf(200), await medianOf(60_000)];
    return new Costs(small, Math.max(0, (large - small) / 60_000));
  }

  ofSize(bytes: number): number {
    return this.#fixedUs + this.#perByteUs * bytes;
  }
}

/** The server's process. */
class Target {
  readonly #child: ChildProcess;
  readonly #port: number;
  readonly token: string;
  readonly #output: string[] = [];
  #heard: (usage: Usage | undefined) => void = () => {};

  constructor(child: ChildProcess, { port, token }: Begun) {
    this.token = token;
    this.#child = child;
    this.#port = port;
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (chunk) => this.#output.push(String(chunk)));
    child.on("message", (usage) => this.#heard(usage as Usage));
    child.on("close", () => this.#heard(undefined));
  }

  static async start(): Promise<Target> {
    const child = fork(fileURLToPath(new URL("target.ts", import.meta.url)), {
      execArgv: ["--disable-warning=ExperimentalWarning", "--expose-gc"],
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    const [begun] = await once(child, "message");
    return new Target(child, begun);
  }

  async usage(what: "cpu" | "memory"): Promise<Usage> {
    const usage = await new Promise<Usage | undefined>((resolve) => {
      this.#heard = resolve;
      if (this.#child.connected) this.#child.send(what);
      else resolve(undefined);
    });
    assert.ok(usage !== undefined, `The server has ended:\n${this.#output.join("")}`);
    return usage;
  }

  /** What an input takes of the server's processor, in µs. */
  async cost(input: Buffer): Promise<number> {
    const before = await this.usage("cpu");
    await this.send(input);
    return (await this.usage("cpu")).cpuUs - before.cpuUs;
  }

  /** Sends on a connection of its own, and gives what comes back until nothing more does. */
  send(input: Buffer): Promise<Buffer> {
    return new Promise((resolve) => {
      const chunks: Buffer[] = [];
      const socket = createConnection(this.#port, "127.0.0.1", () => socket.write(input));
      const end = () => {
        clearTimeout(timer);
        socket.destroy();
        resolve(Buffer.concat(chunks));
      };
      let timer = setTimeout(end, ANSWER_MS);
      socket.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        clearTimeout(timer);
        timer = setTimeout(end, MORE_MS);
      });
      socket.on("error", end);
      socket.on("close", end);
    });
  }

  /** Over both versions of HTTP a valid call is answered. */
  async assertAlive(): Promise<void> {
    for (const version of [1, 2] as const) {
      const answer = await answered(this.#port, validCall(version, 500));
      assert.ok(answer.includes("0198a0de"), `A valid call over HTTP/${version} got: ${answer.toString("latin1").slice(0, 300)}`);
    }
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill("SIGKILL");
    await once(this.#child, "exit");
  }
}

/** Sends a call and waits for what its answer holds, however long it takes. */
async function answered(port: number, call: Buffer): Promise<Buffer> {
  const socket = createConnection(port, "127.0.0.1");
  socket.write(call);
  let seen = Buffer.alloc(0);
  for await (const chunk of socket) {
    seen = Buffer.concat([seen, chunk]);
    if (seen.includes("0198a0de")) break;
  }
  return seen;
}
