import { DATA_STORES } from "./data-stores.ts";
import { OPERABILITY } from "./operability.ts";
import { RELIABILITY } from "./reliability.ts";

/** A test by its file and its title, as it is written there. */
export type NamedTest = readonly [file: string, title: string];

/** One line of the checklist. */
export interface Line {
  /** What the checklist calls it. */
  readonly check: string;
  /** The level from which on it is asked for; lines of our own have none. */
  readonly level?: "A" | "B" | "C";
  /** What it asks for, in our words. */
  readonly asks: string;
  readonly tests?: readonly NamedTest[];
  /** Why there is no test, or what tests leave to the installation. */
  readonly note?: string;
}

/** A section of the checklist, under its own name. */
export interface Section {
  readonly title: string;
  /** The page it stands on; undefined for what we ask of ourselves besides. */
  readonly page?: "design-checklist" | "pre-production-checklist";
  readonly about?: string;
  readonly lines: readonly Line[];
}

/** Every line, in the checklist's order, and behind it what we ask of ourselves besides. */
export const CHECKLIST: readonly Section[] = [
  {
    title: "General",
    page: "design-checklist",
    lines: [
      {
        check: "Stateless server",
        level: "C",
        asks: "What must last is kept outside of the container.",
        tests: [
          [
            "tests/readiness/pods.test.ts",
            "keeps nothing that must last: its volumes are empty at its start, or secrets and settings",
          ],
          ["tests/search/index.test.ts", "is asked for when the file is missing, broken or of another format"],
        ],
        note: "The index of search is in the pod, and made anew from the catalog.",
      },
      {
        check: "Deploy order",
        level: "B",
        asks: "Services can be deployed in any order.",
        tests: [
          [
            "tests/processes/rolling.proof.test.ts",
            "fails no call of those who call them, directly or through another process, and ends none of them badly",
          ],
          ["tests/runtime/migrations-landed.test.ts", "sells, pays out and keeps the books on MariaDB, where it knows it"],
          [
            "tests/client/connections.test.ts",
            "are UNAVAILABLE, long before the deadline, when nothing listens, or when what listens says nothing",
          ],
        ],
      },
      {
        check: "Exclusive data ownership",
        level: "C",
        asks: "Nobody but the service itself reaches its tables.",
        tests: [
          ["tests/tooling/stores.test.ts", "give each service a database that no other service's user can read"],
          [
            "tests/charts/policies.test.ts",
            "let each workload reach those it calls and what egress names for it, and nothing else",
          ],
        ],
      },
    ],
  },
  {
    title: "Security",
    page: "design-checklist",
    lines: [
      {
        check: "Authentication",
        level: "C",
        asks: "Who calls is established before anything else.",
        tests: [
          ["tests/purchase/bad-input.test.ts", "no token, an expired one, one of another key, and one changed by a character"],
          [
            "tests/cluster/gateway.cluster.ts",
            "refuses tokens that are expired, of another issuer, for another audience or by another key",
          ],
        ],
      },
      {
        check: "Authorization",
        level: "C",
        asks: "Each method admits those who need it, and nobody else.",
        tests: [
          ["tests/policy/access.test.ts", "has a row for every method of the contract and for no other"],
          ["tests/policy/access.test.ts", "… admits exactly the callers it should"],
          ["tests/charts/policies.test.ts", "let each caller call each method as the proto declares, and nothing else, in …"],
          ["tests/cluster/purchase.cluster.ts", "shows a stranger no method of the inside, and an account no operator's"],
        ],
      },
      {
        check: "Transport Security",
        level: "C",
        asks: "Nothing travels in the clear over networks of others.",
        tests: [
          ["tests/charts/policies.test.ts", "deny all pods of the installation what no policy allows, and take mutual TLS only"],
          [
            "tests/cluster/gateway.cluster.ts",
            "answers Connect calls of who trusts the authority of its certificate, and of nobody else",
          ],
          [
            "tests/runtime/redis-forms.test.ts",
            "over TLS, brings events and remembers what was read where the CA is named, and says what to do where it is not",
          ],
        ],
        note: "In production the chart refuses a gateway without a certificate, and one that serves plain HTTP (`npm run test:charts`).",
      },
    ],
  },
  {
    title: "Sustainability",
    page: "design-checklist",
    about: "What it asks of a team no program can prove; what the program can give it is named.",
    lines: [
      {
        check: "No short-term transfer",
        level: "B",
        asks: "The team stays.",
        note: "It is about who runs the platform, which this repository does not know.",
      },
      {
        check: "OnCall considered team",
        level: "A",
        asks: "The team is on call as it should be.",
        note: "Yours to arrange; alerts and runbooks are made for it.",
      },
      {
        check: "Cross-functional team",
        level: "C",
        asks: "The team can do all that the service needs.",
        note: "It is about who runs the platform, which this repository does not know.",
      },
      {
        check: "Dependency SLA",
        level: "B",
        asks: "What is depended on, and what it promises, is known.",
        tests: [
          ["tests/charts/policies.test.ts", "draw the same call graph below the mesh"],
          [
            "tests/policy/contract.test.ts",
            "declares a valid policy on every method, with more than one attempt only where the idempotency level allows it",
          ],
        ],
        note: "`docs/api/call-graph.md` says who calls whom, each method what it promises; what your MySQL, Redis and processor promise is in your contracts with them.",
      },
      {
        check: "SLOs",
        level: "B",
        asks: "Each method's objectives are written down.",
        tests: [
          ["tests/runtime/policy.test.ts", "bounds the request and promises something"],
          ["tests/mesh/alert-rules.test.ts", "know the budget of every method"],
          [
            "tests/load/report.test.ts",
            "weighs by the promises that the contract makes of each method, of a stream's changes, too",
          ],
        ],
      },
      {
        check: "Error budget",
        level: "A",
        asks: "New features wait when the budget is spent.",
        tests: [
          [
            "tests/readiness/signals.test.ts",
            "has for every service its calls, what is eaten and left of their error budgets, and how long they take",
          ],
        ],
        note: "To wait is the team's decision.",
      },
    ],
  },
  ...OPERABILITY,
  ...RELIABILITY,
  ...DATA_STORES,
];
