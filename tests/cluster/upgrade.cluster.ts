import assert from "node:assert/strict";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { root } from "../../tools/checks/run.ts";
import { tool } from "./cluster.ts";
import { type Outcome, underLoad } from "./load.ts";
import { CURRENT, imageValues, installSouk, type Program, type Release, valuesBehind } from "./release.ts";
import { report, seconds } from "./report.ts";
import { endShared } from "./shared.ts";

const HOST = "upgrade-test.souk.example";
/** Before and after what is done under load, so that calls are under way on both sides, in ms. */
const AROUND_MS = 3_000;

describe("a marketplace on a cluster that is upgraded under load", function () {
  this.timeout(900_000);
  let release: Release;
  before(async () => {
    await endShared();
    release = await installSouk(valuesBehind(HOST, 2), { program: previousProgram(), ownProcessor: true });
  });
  after(() => release?.end());

  async function upgrade({ chart, image }: Program, ...more: readonly string[]): Promise<void> {
    const { name, values } = release;
    const { repository, tag } = imageValues(image);
    const settings = ["--values", values, "--set", `image.repository=${repository},image.tag=${tag}`];
    await tool(
      "helm",
      "upgrade",
      name,
      resolve(root, chart),
      "--namespace",
      name,
      "--wait",
      "--timeout",
      "5m",
      ...settings,
      ...more,
    );
  }

  /** Does it while people browse, sell and buy, and tells what it took and what they noticed. */
  async function measured(what: string, work: () => Promise<void>): Promise<Outcome> {
    let ms = 0;
    const outcome = await underLoad({ keys: release.keys, host: HOST }, async () => {
      await sleep(AROUND_MS);
      const beginTime = performance.now();
      await work();
      ms = performance.now() - beginTime;
      await sleep(AROUND_MS);
    });
    const { calls, sent, again, failures } = outcome;
    report(
      `${what}: ${seconds(ms)}; ${calls} calls, ${sent} attempts sent, ${again} of them again; failed: ${failures.join(", ") || "none"}`,
    );
    return outcome;
  }

  const running = async () =>
    (
      await tool(
        "kubectl",
        "-n",
        release.name,
        "get",
        "deployments",
        "-o",
        'jsonpath={range .items[*]}{.metadata.name} {.metadata.generation} {.spec.template.spec.containers[0].image}{"\\n"}{end}',
      )
    ).split("\n");

  it("is as it was after a migration that fails, and loses no call meanwhile", async () => {
    const database = `${release.prefix}order`;
    // What the migration makes is there already, and no note that it ran.
    await release.administer(
      `DELETE FROM ${database}.migration WHERE owner = 'order' AND name = '${MIGRATION}'; CREATE INDEX IF NOT EXISTS orders_state_buyer ON ${database}.orders (state, buyer_id, order_id);`,
    );
    const before = await running();
    nothingFailed(
      await measured("an upgrade whose migration fails", async () => {
        await assert.rejects(upgrade(CURRENT, "--set", "migrations.retries=0"), /pre-upgrade hooks failed/);
      }),
    );
    assert.deepEqual(await running(), before);
  });

  it("takes the next upgrade, which resumes that migration, and the way back, without a failed call", async () => {
    nothingFailed(await measured("upgrade from what landed last", () => upgrade(CURRENT)));
    const state = await release.administer(
      `SELECT run_time > 0 FROM ${release.prefix}order.migration WHERE name = '${MIGRATION}';`,
    );
    assert.equal(state.trim(), "1");
    const back = await measured("rollback to it", async () => {
      await tool("helm", "rollback", release.name, "1", "--namespace", release.name, "--wait", "--timeout", "5m");
    });
    nothingFailed(back);
    const { image } = previousProgram();
    assert.ok(
      (await running()).every((line) => line === "" || line.endsWith(` ${image}`)),
      "the image of before runs again",
    );
  });

  const BROKEN: Readonly<Record<string, readonly string[]>> = {
    "an image that is nowhere": ["--set", "image.tag=nowhere", "--timeout", "20s"],
    "a program that does not start": ["--set", "defaults.env.SOUK_LOG_LEVEL=none", "--timeout", "30s"],
  };
  for (const [what, settings] of Object.entries(BROKEN)) {
    it(`serves on when the upgrade brings ${what}, and loses no call`, async () => {
      const images = (await running()).map((line) => line.split(" ").at(-1));
      nothingFailed(
        await measured(`an upgrade to ${what}, taken back`, async () => {
          await assert.rejects(upgrade(CURRENT, "--atomic", ...settings), /UPGRADE FAILED/);
        }),
      );
      assert.deepEqual(
        (await running()).map((line) => line.split(" ").at(-1)),
        images,
      );
    });
  }
});

/** As the calling code sees it, after the retries of policy. */
function nothingFailed({ failures }: Outcome): void {
  assert.deepEqual(failures, []);
}

/** A migration without which programs run as well: an index. */
const MIGRATION = "0002-index-state-first";

/** What an upgrade comes from. */
function previousProgram(): Program {
  const { SOUK_CLUSTER_PREVIOUS_IMAGE: image, SOUK_CLUSTER_PREVIOUS_CHART: chart } = process.env;
  if (image === undefined || chart === undefined) {
    throw new Error(
      "Nothing says what an upgrade comes from. `node tools/bootstrap.mjs tools/previous.ts FOLDER` unpacks what landed last; build its image, and name both: SOUK_CLUSTER_PREVIOUS_IMAGE, and SOUK_CLUSTER_PREVIOUS_CHART=FOLDER/helm/souk.",
    );
  }
  return { image, chart };
}
