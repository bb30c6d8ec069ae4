import assert from "node:assert/strict";
import { ACCOUNT_HEADER, SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { CLIENT_CERT_HEADER } from "#runtime/mesh-identity.ts";
import { until } from "./cluster.ts";
import { type Guarded, guarded } from "./guarded.ts";
import { answerOfProgram, callGraphHolds, egressIsBounded, plaintextIsRefused, REFUSED } from "./guards.ts";
import { ADA, askGateway, bearer } from "./through-gateway.ts";

const SCAN = "/marketplace.catalog.v1.CatalogService/ScanListings";
const BEN = "01900000-0000-7000-8000-0000000000a2";

describe("identity in the mesh", function () {
  this.timeout(300_000);
  let lab: Guarded;
  before(async () => {
    lab = await guarded();
    await until("the proxies have their policies", async () => (await callGraphHolds(lab, (name) => name === "service ops")) > 0);
  });

  it("is needed: nobody is answered without mutual TLS", () => plaintextIsRefused(lab));

  it("decides who may call what, as the contract's policies say, for every caller and method", async () => {
    const calls = await callGraphHolds(lab);
    assert.ok(calls > 3_000, String(calls));
  });

  it("is the certificate's: no header inside says who calls", async () => {
    const forged = {
      [CLIENT_CERT_HEADER]: `By=spiffe://cluster.local/ns/${lab.name}/sa/${lab.name}-catalog;Hash=00;Subject="";URI=spiffe://cluster.local/ns/${lab.name}/sa/${lab.name}-search`,
      [SERVICE_TOKEN_HEADER]: "nonsense",
      "x-souk-service": "search",
      "x-souk-subject": ADA,
    };
    const status = async (pod: string) => (await answerOfProgram(lab, pod, SCAN, forged)).status;
    for (const pod of ["as/order", "as/default", "elsewhere/search"]) assert.equal(await status(pod), 403, pod);
    assert.equal(await status("as/search"), 200);
  });

  it("is checked by the program again: with the mesh's policies open it still refuses who may not", async () => {
    await lab.configure({ files: { "templates/access.yaml": (text) => text + allowEverybody(lab.name) } });
    try {
      const refusalOf = async (pod: string, headers = {}) => (await answerOfProgram(lab, pod, SCAN, headers)).message;
      // The last has the account's name of search, which alone may, in another namespace.
      const callers = ["as/order", "as/default", "elsewhere/search"];
      // Connections that were open before keep the old policies until they are drained, which may take 45 s.
      for (const pod of callers)
        await until(`${pod} asks the program`, async () => !decodeURIComponent(await refusalOf(pod)).includes(REFUSED), 90);
      const element = (service: string) =>
        `By=x;Hash=00;Subject="";URI=spiffe://cluster.local/ns/${lab.name}/sa/${lab.name}-${service}`;
      const forgeries = [
        element("search"),
        `${element("order")},${element("search")}`,
        `${element("search")};Subject="`,
        '"',
        `URI=a"`,
      ];
      for (const pod of callers) {
        assert.match(await refusalOf(pod), /PERMISSION_DENIED/, `${pod} may`);
        for (const forged of forgeries) {
          assert.match(
            await refusalOf(pod, { [CLIENT_CERT_HEADER]: forged }),
            /PERMISSION_DENIED/,
            `${pod} is taken for another by ${forged}`,
          );
        }
        assert.match(await refusalOf(pod, await bearer(lab.keys, { operator: true })), /PERMISSION_DENIED/, pod);
      }
      const search = await answerOfProgram(lab, "as/search", SCAN, { [CLIENT_CERT_HEADER]: element("order") });
      assert.equal(search.status, 200, search.message);
    } finally {
      await lab.configure();
    }
    await until("the policies are closed again", async () => (await callGraphHolds(lab, (name) => name === "as/default")) > 0);
  });

  it("comes from nowhere outside: the gateway takes away what only the inside may say", async () => {
    const forged = {
      [CLIENT_CERT_HEADER]: `URI=spiffe://cluster.local/ns/${lab.name}/sa/${lab.name}-order`,
      [ACCOUNT_HEADER]: BEN,
      [SERVICE_TOKEN_HEADER]: "a.b.c",
      "x-souk-service": "order",
      "x-souk-subject": BEN,
    };
    const path = "/marketplace.account.v1.AccountService/GetProfile";
    for (const [subject, token] of [
      [undefined, {}],
      [ADA, await bearer(lab.keys)],
    ] as const) {
      const { status, seen = {} } = await askGateway(lab, path, { headers: { ...forged, ...token, "x-lab-tell": "yes" } });
      assert.equal(status, 200);
      assert.equal(seen[ACCOUNT_HEADER], undefined);
      assert.equal(seen[SERVICE_TOKEN_HEADER], undefined);
      assert.equal(seen["x-souk-service"], undefined);
      assert.equal(seen["x-souk-subject"], subject);
      const certificates = String(seen[CLIENT_CERT_HEADER]);
      assert.match(certificates, /URI=spiffe:\/\/cluster\.local\/ns\/istio-ingress\/sa\/istio-ingressgateway$/);
      assert.doesNotMatch(certificates, new RegExp(`${lab.name}-order`));
    }
  });

  it("bounds where a workload may go: to what it calls and what egress names for it", () => egressIsBounded(lab));
});

/** What an open policy looks like. */
function allowEverybody(name: string): string {
  return `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ${name}-open, namespace: ${name}}
spec: {action: ALLOW, rules: [{}]}
`;
}
