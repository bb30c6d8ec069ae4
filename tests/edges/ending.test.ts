import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ServerReflection } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { readConfig } from "#runtime/config.ts";
import { reasonOf } from "#runtime/errors.ts";
import { run, SERVICES } from "../../services/main.ts";
import { temporaryFolder } from "../support/database.ts";
import { type StartedMarketplace, startMarketplace } from "../support/process.ts";

const LIST_CATEGORIES = "/marketplace.catalog.v1.CatalogService/ListCategories";

/** A call whose body comes in two parts. Answers the status once the second was sent. */
async function callInTwoParts(url: string): Promise<{ finish(): Promise<string> }> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk;
  });
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write(`POST ${LIST_CATEGORIES} HTTP/1.1\r\nhost: souk\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{`);
  await sleep(100);
  return {
    async finish() {
      socket.write("}");
      await once(socket, "close");
      return text.split("\r\n", 1)[0] as string;
    },
  };
}

describe("a marketplace that is told to end", function () {
  this.timeout(60_000);
  let folder: ReturnType<typeof temporaryFolder>;
  let marketplace: StartedMarketplace;
  const start = async (env: NodeJS.ProcessEnv) => {
    marketplace = await startMarketplace(["--port", "0", "--no-seed", "--data-dir", folder.path], env);
  };
  const exit = async () =>
    marketplace.child.exitCode === null ? (await once(marketplace.child, "exit"))[0] : marketplace.child.exitCode;
  beforeEach(() => {
    folder = temporaryFolder();
  });
  afterEach(async () => {
    if (marketplace.child.exitCode === null) await marketplace.kill();
    folder.remove();
  });

  it("says so first, takes calls until that was noticed, and ends with 0", async () => {
    await start({ SOUK_DRAIN_DELAY_MS: "1500" });
    marketplace.child.kill("SIGTERM");
    const ready = () => fetch(`${marketplace.url}/readyz`, { headers: { connection: "close" } });
    while ((await ready()).status === 200) await sleep(5);
    const call = await fetch(marketplace.url + LIST_CATEGORIES, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    assert.equal(call.status, 200);
    assert.equal(call.headers.get("connection"), "close");
    assert.equal(await exit(), 0);
  });

  it("takes signals that come together for one, as a process group and npm pass them on, and finishes its calls", async () => {
    await start({ SOUK_DRAIN_DELAY_MS: "0" });
    const call = await callInTwoParts(marketplace.url);
    for (const signal of ["SIGINT", "SIGINT", "SIGTERM"] as const) marketplace.child.kill(signal);
    while (!marketplace.output().includes("Ending")) await sleep(5);
    assert.equal(await call.finish(), "HTTP/1.1 200 OK");
    assert.equal(await exit(), 0);
  });

  it("ends at once when it is told again", async () => {
    await start({ SOUK_DRAIN_DELAY_MS: "60000" });
    await callInTwoParts(marketplace.url);
    marketplace.child.kill("SIGTERM");
    while (!marketplace.output().includes("Ending")) await sleep(5);
    await sleep(700);
    assert.equal(marketplace.child.exitCode, null);
    marketplace.child.kill("SIGTERM");
    assert.equal(await exit(), 143);
  });
});

describe("in production", () => {
  it("nobody is told the contract", async function () {
    this.timeout(60_000);
    const folder = temporaryFolder();
    const settings = readConfig({
      argv: ["--port", "0", "--data-dir", folder.path],
      env: { SOUK_LOG_LEVEL: "fatal" },
      services: SERVICES,
    });
    assert.ok("config" in settings);
    for (const env of ["development", "production"] as const) {
      const running = await run({ ...settings.config, env });
      try {
        const asked = createClient(ServerReflection, createGrpcTransport({ baseUrl: running.url })).serverReflectionInfo(
          (async function* () {
            yield { messageRequest: { case: "listServices" as const, value: "" } };
          })(),
        );
        const names: (string | undefined)[] = [];
        try {
          for await (const { messageResponse } of asked) names.push(messageResponse.case);
        } catch (error) {
          names.push(reasonOf(error));
        }
        assert.deepEqual(names, [env === "production" ? "UNIMPLEMENTED" : "listServicesResponse"]);
      } finally {
        await running.stop();
      }
    }
    folder.remove();
  });
});
