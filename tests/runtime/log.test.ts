import assert from "node:assert/strict";
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
});
