import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createLog, type LogFormat } from "#runtime/log.ts";

function logged(format: LogFormat, write: (log: ReturnType<typeof createLog>) => void): string {
  let text = "";
  write(
    createLog({
      level: "info",
      format,
      destination: {
        write(line) {
          text += line;
        },
      },
    }),
  );
  return text;
}

describe("the log", () => {
  it("writes one JSON object a line for machines", () => {
    const line = JSON.parse(logged("json", (log) => log.info({ method: "a/B", ms: 1 }, "done")));
    assert.deepEqual([line.method, line.ms, line.msg], ["a/B", 1, "done"]);
    assert.match(line.time, /^\d{4}-/);
  });
  it("writes one readable line for people", () => {
    const line = logged("line", (log) => log.info({ method: "marketplace.order.v1.OrderService/GetOrder", code: 0 }));
    assert.match(line, /^\d\d:\d\d:\d\d\.\d{3} info {2}order\.v1\.OrderService\/GetOrder code=0\n$/);
  });
  it("writes no secret, wherever it stands", () => {
    for (const format of ["json", "line"] as const) {
      const text = logged(format, (log) => log.info({ authorization: "s3cret", headers: { token: "s3cret" }, email: "s3cret" }));
      assert.doesNotMatch(text, /s3cret/);
    }
  });
  it("writes errors with their causes, and not the values of a statement", () => {
    const driver = new Error("insert into `address` (`name`) values ('Ada') - UNIQUE constraint failed: address.id");
    const error = new Error("The order could not be placed.", { cause: driver });
    for (const format of ["json", "line"] as const) {
      const text = logged(format, (log) => log.error({ err: error }, "a call failed"));
      assert.match(text, /could not be placed/);
      assert.match(text, /insert into … - UNIQUE constraint failed/);
      assert.doesNotMatch(text, /Ada/);
    }
  });
  it("loses no line when the process fails or ends by itself, and keeps a warning waiting for nobody", async () => {
    const run = async (end: string) => {
      const code = `import { createLog } from "#runtime/log.ts";
        const log = createLog({ level: "info", format: "json" });
        for (let line = 0; line < 3; line++) log.info({ line });
        ${end}`;
      const child = spawn(process.execPath, ["--input-type=module", "-e", code], { stdio: ["ignore", "ignore", "pipe"] });
      let text = "";
      child.stderr.on("data", (chunk) => {
        text += chunk;
        if (text.includes('"line":"urgent"')) child.kill("SIGKILL");
      });
      await once(child, "close");
      return text.split("\n").flatMap((line) => /"line":("?\w+)/.exec(line)?.[1] ?? []);
    };
    assert.deepEqual(await run("throw new Error('it failed')"), ["0", "1", "2"]);
    assert.deepEqual(await run("process.exit(3)"), ["0", "1", "2"]);
    const killed = await run(`log.warn({ line: "urgent" }); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);`);
    assert.deepEqual(killed, ["0", "1", "2", '"urgent']);
  });
});
