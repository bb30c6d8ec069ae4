import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type Edit, type Guarded, guarded, ONCE, type Policies } from "./guarded.ts";
import {
  callGraphHolds,
  egressIsBounded,
  failingReplicasAreLeftOut,
  internalMethodsAreHidden,
  onlyWhatIsSafeIsRepeated,
  plaintextIsRefused,
  tokensAreChecked,
} from "./guards.ts";

/** A mistake in the configuration, what finds it, and what is then said. */
interface Mutation {
  readonly edit: Edit;
  readonly check: (lab: Guarded) => Promise<unknown>;
  readonly says: RegExp;
}

const RESERVE = "marketplace.inventory.v1.InventoryService/Reserve";

/** Changes one method in the generated policies. */
function method(name: string, change: (method: Policies["workloads"][number]["methods"][number]) => object): Edit {
  return {
    policies: (all) => ({
      ...all,
      workloads: all.workloads.map((workload) => ({
        ...workload,
        methods: workload.methods.map((each) => (each.name === name ? { ...each, ...change(each) } : each)),
      })) as Policies["workloads"],
    }),
  };
}

const OPEN_POLICY = `
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: {{ include "mesh.prefix" . }}open, namespace: {{ include "mesh.namespace" . }}}
spec: {selector: {matchLabels: {app.kubernetes.io/name: payment}}, action: ALLOW, rules: [{}]}
`;

const MUTATIONS: Readonly<Record<string, Mutation>> = {
  "mutual TLS that is not required": {
    edit: { files: { "templates/access.yaml": (text) => text.replace("mode: STRICT", "mode: PERMISSIVE") } },
    check: plaintextIsRefused,
    says: /answered without TLS/,
  },
  "a retry of a method that nobody may repeat": {
    edit: method(ONCE, () => ({ attempts: 3 })),
    check: onlyWhatIsSafeIsRepeated,
    says: /LabService\/Once was tried again/,
  },
  "an open policy": {
    edit: { files: { "templates/access.yaml": (text) => text + OPEN_POLICY } },
    check: (lab) => callGraphHolds(lab, (caller) => caller === "service search"),
    says: /service search may call .* of payment/,
  },
  "replicas that are never left out": {
    edit: {
      files: { "templates/destination-rules.yaml": (text) => text.replace(/ {4}outlierDetection:\n(?: {6}.*\n)+/, "") },
    },
    check: failingReplicasAreLeftOut,
    says: /of 200 calls met the failing replica/,
  },
  "a wrong audience": {
    edit: { values: (values) => ({ ...values, issuer: { ...values.issuer, audience: "others" } }) },
    check: tokensAreChecked,
    says: /a good token is refused/,
  },
  "an exposed internal method": {
    edit: method(RESERVE, () => ({ exposed: true })),
    check: internalMethodsAreHidden,
    says: /Reserve (got past the gateway|is answered from outside)/,
  },
  "open egress": {
    edit: { files: { "templates/egress.yaml": (text) => text.replace("REGISTRY_ONLY", "ALLOW_ANY") } },
    check: egressIsBounded,
    says: /undeclared/,
  },
};

describe("the checks of the mesh", function () {
  this.timeout(180_000);
  let lab: Guarded;
  before(async () => {
    lab = await guarded();
  });
  after(() => lab?.configure());

  for (const [name, { edit, check, says }] of Object.entries(MUTATIONS)) {
    it(`find ${name}, and nothing to say once it is as declared again`, async () => {
      await comesTrue(() => check(lab));
      await lab.configure(edit);
      await comesTrue(() => assert.rejects(check(lab), { name: "AssertionError", message: says }));
      await lab.configure();
      await comesTrue(() => check(lab));
    });
  }
});

/** Proxies hear of a change within seconds: what is not so yet may become so for half a minute. */
async function comesTrue(check: () => Promise<unknown>): Promise<void> {
  const endTime = Date.now() + 30_000;
  for (;;) {
    try {
      await check();
      return;
    } catch (error) {
      if (Date.now() > endTime) throw error;
      await sleep(1_000);
    }
  }
}
