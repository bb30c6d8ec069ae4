import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { createClient } from "@connectrpc/connect";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { loadOrCreateKeys, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { connectAs } from "../../tools/identity.ts";
import { temporaryFolder } from "../support/database.ts";
import { demo } from "../support/marketplace.ts";
import { ROOT, type StartedMarketplace, startMarketplace } from "../support/process.ts";

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

describe("The tools, beside a marketplace that runs,", function () {
  this.timeout(60_000);
  const folder = temporaryFolder();
  const dataDir = join(folder.path, "data");
  let marketplace: StartedMarketplace;

  before(async () => {
    marketplace = await startMarketplace(["--port", "0", "--data-dir", dataDir, "--no-seed"]);
  });
  after(async () => {
    assert.equal(await marketplace.stop(), 0);
    folder.remove();
  });

  /** Runs a tool as npm would. */
  async function run(tool: string, args: readonly string[], options: { input?: Uint8Array; env?: object } = {}): Promise<Ended> {
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", `tools/${tool}.ts`, ...args], {
      cwd: ROOT,
      env: { ...process.env, SOUK_DATA_DIR: dataDir, ...options.env },
    });
    const text = { out: "", err: "" };
    child.stdout.on("data", (chunk) => {
      text.out += chunk;
    });
    child.stderr.on("data", (chunk) => {
      text.err += chunk;
    });
    // A tool that ends before it has read everything closes its end.
    child.stdin.on("error", () => {});
    child.stdin.end(options.input);
    const [code] = await once(child, "close");
    return { code, ...text };
  }
  const imported = (args: readonly string[], options?: { input?: Uint8Array; env?: object }) =>
    run("import", ["--url", marketplace.url, "--no-wait", ...args], options);
  const file = (name: string, contents: string | Uint8Array): string => {
    const path = join(folder.path, name);
    writeFileSync(path, contents);
    return path;
  };
  /** The titles of a seller's listings, in the order in which they were created. */
  async function titlesOf(seller: string): Promise<string[]> {
    const keys = await loadOrCreateKeys(join(dataDir, "keys"));
    const accountId = demo(seller).account;
    const catalog = createClient(
      CatalogService,
      connectAs(marketplace.url, () => signAccountToken(keys, { accountId })),
    );
    const { listings } = await catalog.listSellerListings({ sellerId: accountId, pageSize: 100 });
    return listings.map((listing) => listing.title).sort();
  }
  const line = (id: string, more: object = {}): string =>
    JSON.stringify({ id, title: `Lamp ${id}`, price_minor: 5000, currency_code: "USD", category_id: "lamps", ...more });

  describe("import", () => {
    it("reports each bad line by its number and reason, puts the rest in, and ends with code 1", async () => {
      const lines: [text: string, problem: RegExp | undefined][] = [
        [line("1"), undefined],
        ['{"id": "2", "title": ', /not JSON/],
        ["[1, 2]", /not an object/],
        ["", undefined],
        [line("5", { colour: "red" }), /unknown field "colour"/],
        [line("", {}), /external_id \(or id\) is missing/],
        [line("7", { price_minor: -1 }), /price_minor must be a whole number/],
        [line("8", { price_minor: 1.5 }), /price_minor must be a whole number/],
        [line("9", { price_minor: "abc" }), /price_minor must be a whole number/],
        [line("10", { price_minor: undefined }), /price_minor must be a whole number/],
        [line("11", { price_minor: 0 }), /INVALID_REQUEST: price/],
        [line("12", { price_minor: 100_000_001 }), /INVALID_REQUEST: price/],
        [line("13", { price_minor: 1e17 }), /price_minor|INVALID_REQUEST/],
        [line("14", { currency_code: "EUR" }), /INVALID_REQUEST: price.currency_code/],
        [line("15", { title: 7 }), /title must be text/],
        [line("16", { title: "" }), /INVALID_REQUEST: title/],
        [line("17", { category_id: "no-such-category" }), /CATEGORY_NOT_FOUND/],
        [line("18", { condition: "shiny" }), /condition "shiny" is unknown/],
        [line("19", { units: 4_294_967_296 }), /units is too large/],
        [line("20", { description: "x".repeat(300_000) }), /more than 262144 characters/],
        [line("1", { title: "Another lamp 1" }), /EXTERNAL_ID_CONFLICT/],
        [line("22", { title: "\ud83d" }), /title must be text/],
        [line("23", { handling_days: -1 }), /handling_days must be a whole number/],
        [line("24", { title: "Lamp\u2028 24" }), undefined],
        [`${line("25")}\r`, undefined],
      ];
      const path = file("lines.jsonl", lines.map(([text]) => text).join("\n"));
      const first = await imported([path]);
      const problems = lines.flatMap(([, problem], i) => (problem === undefined ? [] : [[i + 1, problem] as const]));
      const told = first.err.split("\n").filter((each) => each.startsWith("line "));
      for (const [number, problem] of problems) {
        const found = told.filter((each) => each.startsWith(`line ${number}: `));
        assert.equal(found.length, 1, `line ${number} in\n${first.err}`);
        assert.match(found[0] ?? "", problem);
      }
      assert.equal(told.length, problems.length, first.err);
      assert.match(first.out, new RegExp(`^3 created, 0 there already, ${problems.length} refused`));
      assert.equal(first.code, 1);
      assert.deepEqual(await titlesOf("ada"), ["Lamp 1", "Lamp 25", "Lamp\u2028 24"]);

      const again = await imported([path]);
      assert.match(again.out, new RegExp(`^0 created, 3 there already, ${problems.length} refused`));
      assert.equal((await titlesOf("ada")).length, 3);
    });

    it("reads CSV, gzip whatever its name, and standard input, and creates nothing twice over any of them", async () => {
      const rows = ["a", "b", "c"].map((id) => `${id},"Lamp, ""${id}""",5000,USD,lamps`);
      const csv = ["external_id,title,price_minor,currency_code,category_id", ...rows].join("\r\n");
      const csvFile = file("rows.csv", csv);
      const [plain, short] = await Promise.all([
        imported([csvFile, "--as", "tess"]),
        imported(["-", "--as", "noor", "--format", "csv"], { input: Buffer.from(`${csv}\r\nd,too few\r\ne,Lamp e,1,USD,lamps`) }),
      ]);
      assert.match(plain.out, /^3 created, 0 there already, 0 refused/, plain.err);
      assert.equal(plain.code, 0);
      assert.match(short.err, /^line 5: the row has 2 columns; the first line names 5$/m);
      assert.match(short.out, /^4 created, 0 there already, 1 refused/);
      assert.equal(short.code, 1);
      const [packed, streamed] = await Promise.all([
        imported([file("rows.data", gzipSync(csv)), "--as", "tess", "--format", "csv"]),
        imported(["-", "--as", "tess", "--format", "csv"], { input: gzipSync(csv) }),
      ]);
      for (const { out, code } of [packed, streamed]) {
        assert.match(out, /^0 created, 3 there already, 0 refused/);
        assert.equal(code, 0);
      }
      assert.deepEqual(await titlesOf("tess"), ['Lamp, "a"', 'Lamp, "b"', 'Lamp, "c"']);
    });

    it("says where a gzip breaks off and what of it is in; the whole file then brings the rest", async () => {
      const lines = Array.from({ length: 600 }, (_, i) =>
        line(String(i), { description: Buffer.from(`${i}`.repeat(60)).toString("hex") }),
      );
      const whole = gzipSync(lines.join("\n"));
      const broken = await imported([file("broken.jsonl.gz", whole.subarray(0, Math.floor(whole.length / 2))), "--as", "kenji"]);
      assert.equal(broken.code, 1);
      assertSentence(broken.err, /broken\.jsonl\.gz breaks off: .*(\d+) created, 0 there already, 0 refused so far/);
      const rest = await imported([file("whole.jsonl.gz", whole), "--as", "kenji"]);
      assert.equal(rest.code, 0, rest.err);
      const before = Number(/(\d+) created/.exec(broken.err)?.[1]);
      assert.match(rest.out, new RegExp(`^${600 - before} created, ${before} there already, 0 refused`));
    });
  });

  /** What a person did wrong, and the sentence that says so. */
  const mistakes: [tool: string, args: string[], sentence: RegExp, env?: Record<string, string>][] = [
    ["import", [], /^Which file\? One, please\./],
    ["import", ["a.jsonl", "--colour", "red"], /^Unknown option '--colour'/],
    ["import", ["a.jsonl", "--format", "xml"], /^--format is jsonl or csv, not "xml"\.$/],
    ["import", ["a.jsonl", "--condition", "shiny"], /^--condition: condition "shiny" is unknown/],
    ["import", ["a.jsonl", "--url", "localhost"], /^"localhost" is not an address such as /],
    ["import", ["a.jsonl", "--url", "http://127.0.0.1:1"], /^No marketplace answers at http:\/\/127\.0\.0\.1:1\./],
    ["import", ["no-such-file.jsonl", "--no-wait", "--url", "URL"], /^no-such-file\.jsonl cannot be read: ENOENT/],
    ["import", [".", "--no-wait", "--url", "URL"], /^\. cannot be read: EISDIR/],
    ["import", ["LINES", "--as", "nobody", "--no-wait", "--url", "URL"], /^There is no demo account "nobody"\./],
    ["import", ["LINES", "--no-wait", "--url", "URL"], /^There are no keys in /, { SOUK_DATA_DIR: "EMPTY" }],
    ["token", [], /^Whose token\?/],
    ["token", ["--as", "nobody"], /^There is no demo account "nobody"\./],
    ["token", ["--as", "ada", "--minutes", "soon"], /^--minutes must be a whole number from 1 to 1440, not "soon"\.$/],
    ["token", ["--as", "ada", "--for", "ever"], /^Unknown option '--for'/],
    ["reset", ["--force"], /^npm run reset takes no arguments, not --force/],
    ["reset", [], /^A marketplace runs on .* \(process \d+\): end it first\./],
    ["reindex", ["--fast"], /^Unknown option '--fast'/],
    ["reindex", ["--url", "http://127.0.0.1:1"], /^No marketplace answers at http:\/\/127\.0\.0\.1:1\./],
    ["reindex", ["--url", "URL", "--as", "ben"], /^PERMISSION_DENIED: /],
    ["start", ["--prot", "1"], /prot.*--port/],
    ["start", ["--port", "0"], /^A marketplace runs on .* already \(process \d+\)\./],
  ];

  it("end with a sentence, no stack and a code that is not 0 when they are used wrongly", async () => {
    const empty = join(folder.path, "empty");
    mkdirSync(empty);
    const lines = file("good.jsonl", line("unused"));
    const filled = (text: string) => ({ URL: marketplace.url, LINES: lines, EMPTY: empty })[text] ?? text;
    const queue = mistakes.values();
    const worker = async () => {
      for (const [tool, args, sentence, env = {}] of queue) {
        const ended = await run(tool, args.map(filled), {
          env: Object.fromEntries(Object.entries(env).map(([name, value]) => [name, filled(value)])),
        });
        const name = `${JSON.stringify(env)} ${tool} ${args.join(" ")}`;
        assert.ok(ended.code, `${name} ended with ${ended.code}: ${ended.out}${ended.err}`);
        assertSentence(ended.err, sentence, name);
        assert.equal(ended.out, "", name);
      }
    };
    await Promise.all([worker(), worker(), worker()]);
    assert.ok(existsSync(join(dataDir, "souk.pid")), "what runs is still there");
    assert.ok(!(await titlesOf("ada")).includes("Lamp unused"));
  });

  it("say in which way a token is refused: expired, or of another marketplace", async () => {
    const lines = file("token.jsonl", line("never"));
    const claims = { accountId: demo("ada").account };
    const keys = await loadOrCreateKeys(join(dataDir, "keys"));
    const expired = await signAccountToken(keys, { ...claims, ttlMs: -60_000 });
    const foreign = await signAccountToken(await temporaryKeys(), claims);
    const [late, other] = await Promise.all([expired, foreign].map((token) => imported([lines], { env: { SOUK_TOKEN: token } })));
    assertSentence(late?.err ?? "", /^TOKEN_EXPIRED: /);
    assertSentence(other?.err ?? "", /^TOKEN_INVALID: /);
    assert.deepEqual([late?.code, other?.code], [1, 1]);
  });

  it("do what they are for when they are used rightly", async () => {
    const [token, help, reindex] = await Promise.all([
      run("token", ["--as", "ada"]),
      run("import", ["--help"]),
      run("reindex", ["--url", marketplace.url]),
    ]);
    assert.match(token.out, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    assert.match(help.out, /^npm run import -- FILE/);
    assert.match(reindex.out, /^The search index is rebuilt: [\d,]+ listings/, reindex.err);
    assert.deepEqual([token.code, help.code, reindex.code], [0, 0, 0]);
  });
});

/** Expects a sentence on the first line; what may follow is help, and never a stack. */
function assertSentence(err: string, sentence: RegExp, name = ""): void {
  assert.match(err.split("\n")[0] ?? "", sentence, `${name}\n${err}`);
  assert.doesNotMatch(err, /^\s+at .*:\d+:\d+/m, name);
  assert.doesNotMatch(err, /\[object |undefined/, name);
}
