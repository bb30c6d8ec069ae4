import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root, run } from "../../tools/checks/run.ts";
import { CART, folderWith, refusal, TEN_LINES } from "./foreign.ts";

const DOOR = 'name: "hook", workload: "cart", path: "/hooks/", http_methods: ["POST"], timeout: {seconds: 5}';
const withDoors = (...doors: string[]) =>
  CART.replace("// Carts", `${doors.map((door) => `option (marketplace.policy.v1.door) = {${door}};\n`).join("")}// Carts`);

/** What is wrong, the proto it is wrong in, and what the refusal says. */
const REFUSALS: readonly [string, string, RegExp][] = [
  [
    "no policy",
    CART.replace(/option \(marketplace[^;]*;/, ""),
    /cart\.proto:\d+:\d+: \(marketplace\.policy\.v1\.method\): .*no policy/,
  ],
  ["no caller", CART.replace(/callers: .*\n/, ""), /cart\.proto:10:12: .*admits no caller/],
  ["neither timeout nor age", CART.replace("timeout: {seconds: 2}", ""), /cart\.proto:10:12: .*declares no timeout/],
  ["no budget", CART.replace(/budget: .*\n/, ""), /cart\.proto:10:12: .*no budget/],
  [
    "retries without replay",
    CART.replace(/option idem.*\n/, ""),
    /cart\.proto:9:9: idempotency_level: .*GetCart may be tried 3 times/,
  ],
  ["too many attempts", CART.replace("attempts: 3", "attempts: 6"), /6 times; 5 is the most/],
  ["an unknown caller", CART.replace('"checkout"', '"nobody"'), /"nobody", which no package names.*workload=nobody/],
  ["two doors of one name", withDoors(DOOR, DOOR.replace("/hooks/", "/others/")), /cart\.proto:5:\d+: .*two doors named "hook"/],
  ["two doors on one path", withDoors(DOOR, DOOR.replace('"hook"', '"other"')), /have one path, \/hooks\//],
  [
    "a door with a path that is none",
    withDoors(DOOR.replace("/hooks/", "hooks")),
    /"hooks" .* does not begin and end with a slash/,
  ],
  ["a door without a timeout", withDoors(DOOR.replace("timeout: {seconds: 5}", "")), /"hook" has no timeout/],
];

describe("protoc-gen-mesh", () => {
  for (const [what, proto, says] of REFUSALS) {
    it(`refuses ${what} with the file, the line and the option`, async () => {
      assert.match(await refusal(proto), says);
    });
  }

  it("names every problem of a proto at once", async () => {
    const proto = CART.replace(/budget: .*\n/, "").replace('"checkout"', '"nobody"');
    const said = await refusal(proto);
    assert.match(said, /no budget/);
    assert.match(said, /"nobody"/);
  });

  it("refuses an option of its own that it does not know", async () => {
    assert.match(
      await refusal(CART, "output=yaml"),
      /"output=yaml" is none of output=chart\|service-config\|docs and workload=NAME/,
    );
  });

  it("is run by buf on a proto that is none of ours, as its README says", async function () {
    this.timeout(60_000);
    const { folder, remove } = folderWith(TEN_LINES);
    try {
      const plugin = join(root, "mesh/plugin/protoc-gen-mesh.ts");
      const template = `version: v2\nplugins:\n  - local: [${process.execPath}, ${plugin}]\n    out: out\n    strategy: all\n    opt: [output=chart, workload=checkout]\n`;
      writeFileSync(join(folder, "template.yaml"), template);
      const buf = join(root, "node_modules/@bufbuild/buf/bin/buf");
      const args = [
        "generate",
        folder,
        "--template",
        join(folder, "template.yaml"),
        "--output",
        folder,
        "--path",
        join(folder, "shop"),
      ];
      const { code, output } = await run(process.execPath, [buf, ...args]);
      assert.equal(code, 0, output);
      const policies = JSON.parse(readFileSync(join(folder, "out/generated/policies.json"), "utf8"));
      assert.deepEqual(policies.workloads[0].methods[0].access.services, ["checkout"]);
    } finally {
      remove();
    }
  });

  it("shows in its README the very proto that is tested here, of ten lines, and where the plugin refuses it", async () => {
    const readme = readFileSync(join(root, "mesh/plugin/README.md"), "utf8");
    assert.ok(readme.includes(TEN_LINES));
    assert.equal(TEN_LINES.trim().split("\n").length, 10);
    const refused = await refusal(TEN_LINES.replace(/option idem.*\n/, ""));
    assert.ok(readme.includes(refused.trim().split("\n").at(-1) ?? refused), refused);
  });
});
