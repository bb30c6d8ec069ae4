import assert from "node:assert/strict";
import { once } from "node:events";
import { temporaryFolder } from "../support/database.ts";
import { type StartedMarketplace, startMarketplace } from "../support/process.ts";
import { type Program, runToEnd, startProgram, stopProgram } from "../support/programs.ts";
import { startProvider } from "../support/provider.ts";

describe("a marketplace whose provider and processor are other programs", function () {
  this.timeout(120_000);
  const folder = temporaryFolder();
  const programs: Program[] = [];
  let marketplace: StartedMarketplace;
  before(async () => {
    const here = `${folder.path}/beside`;
    programs.push(await startProgram(["services/processor.ts", "--port", "0", "--simulator-file", `${here}/processor.db`]));
    programs.push(await startProgram(["services/issuer.ts", "--port", "0", "--keys-dir", `${here}/keys`]));
    const [processor, issuer] = programs as [Program, Program];
    marketplace = await startMarketplace(["--port", "0", "--no-seed", "--data-dir", `${folder.path}/souk`], {
      SOUK_PROCESSOR: `${processor.url}/v1`,
      SOUK_ISSUER: issuer.url,
    });
  });
  after(async () => {
    await marketplace?.stop();
    for (const { child } of programs) {
      if (child.exitCode === null && child.kill("SIGKILL")) await once(child, "exit");
    }
    folder.remove();
  });

  it("sells by the provider's tokens, with the processor's money, and its books are right", async () => {
    const issuer = programs[1]?.url ?? "";
    const { code, output } = await runToEnd(["tools/purchase-check.ts", "--url", marketplace.url, "--issuer", issuer]);
    assert.match(output, /the seller has the money\.\nThe books balance\.\nThis installation works\./);
    assert.equal(code, 0);
    const books = await fetch(`${programs[0]?.url}/v1/books?currencyCode=USD`);
    assert.match(await books.text(), /"capturedMinor":"5000"/);
  });

  it("is not bought from where its certificate is by an authority that nobody has named, which is said at once", async () => {
    const provider = await startProvider("souk");
    const { code, output } = await runToEnd(["tools/purchase-check.ts", "--url", provider.url]);
    await provider.close();
    assert.match(output, /^This installation does not work: the certificate of https:.* is not trusted: .*tests\.gatewayAuthority/);
    assert.equal(code, 1);
  });

  it("takes no token of another provider", async () => {
    const headers = { "content-type": "application/json", authorization: `Bearer ${await foreignToken()}` };
    const path = "/marketplace.account.v1.AccountService/GetProfile";
    const answer = await fetch(marketplace.url + path, { method: "POST", headers, body: "{}" });
    assert.equal(answer.status, 401);
    assert.match(await answer.text(), /TOKEN_INVALID/);
  });

  it("has programs beside it that end well, and refuse production", async () => {
    for (const program of programs) assert.equal(await stopProgram(program), 0);
    for (const program of ["services/processor.ts", "services/issuer.ts"]) {
      const { code, output } = await runToEnd([program, "--port", "0"], { SOUK_ENV: "production" });
      assert.match(output, /refuses production|for trying things out/);
      assert.equal(code, 2);
    }
  });

  /** A token of another issuer of the same kind. */
  async function foreignToken(): Promise<string> {
    const other = await startProgram(["services/issuer.ts", "--port", "0", "--keys-dir", `${folder.path}/foreign`]);
    programs.push(other);
    const response = await fetch(`${other.url}/token`, { method: "POST", body: new URLSearchParams({ account: "ada" }) });
    return ((await response.json()) as { access_token: string }).access_token;
  }
});
