import type { Section } from "./checklist.ts";

/** How it is changed, and how it is seen. */
export const OPERABILITY: readonly Section[] = [
  {
    title: "Maintainability",
    page: "pre-production-checklist",
    lines: [
      {
        check: "Unit test",
        level: "C",
        asks: "There are tests, and they run before a change lands.",
        tests: [
          ["tests/tooling/checks.test.ts", "runs the other checks when one fails, shows why, and ends with the counts and code 1"],
        ],
        note: "`.ci/run` runs all of them.",
      },
      {
        check: "Test coverage",
        level: "C",
        asks: "It is known what tests reach.",
        tests: [
          ["tests/policy/access.test.ts", "has a row for every method of the contract and for no other"],
          ["tests/explain/plans.test.ts", "are those of every method that there is"],
          ["tests/mesh/options.test.ts", "is tested here, whichever it is"],
        ],
        note: "By methods, statements and options, each of which has to have its row; lines are not counted.",
      },
      {
        check: "High Test coverage",
        level: "B",
        asks: "Tests reach 80 % of the lines.",
        note: "Not measured: much runs in processes that tests start and kill, where counting lines costs more than it tells.",
      },
      {
        check: "Config in env-var",
        level: "B",
        asks: "The environment can change every setting.",
        tests: [
          ["tests/runtime/config.test.ts", "lists every setting with its variable, default and meaning"],
          ["tests/runtime/config.test.ts", "refuses a wrong value with a sentence that says which, why, and what is allowed"],
        ],
      },
      {
        check: "dockerignore",
        level: "B",
        asks: "The image holds what it needs only.",
        tests: [
          ["tests/readiness/repository.test.ts", "holds what it is allowed to and nothing else: no tests, no keys, no history"],
        ],
      },
      {
        check: "No latest tag",
        level: "B",
        asks: "An image is named by its version.",
        tests: [["tests/charts/souk.test.ts", "runs one image of a named version, and knows passwords by reference only, in …"]],
      },
      {
        check: "Dependabot",
        level: "B",
        asks: "Dependencies become newer by themselves.",
        tests: [
          ["tests/readiness/repository.test.ts", "depends on exact versions, each with the hash of what it was when it was tried"],
        ],
        note: "They do not: each bump is tried by hand, as CONTRIBUTING.md says, because some break a clean installation or a driver; a bot may propose them to the same checks.",
      },
      {
        check: "Automated build",
        level: "C",
        asks: "One command builds it.",
        tests: [["tests/readiness/repository.test.ts", "is built from the lock file, and runs no install script of a dependency"]],
      },
      {
        check: "Automatic build",
        level: "A",
        asks: "CI builds it.",
        tests: [
          ["tests/cluster/purchase.cluster.ts", "sells a thing from its listing to the seller's balance, and the books are right"],
        ],
        note: "`.ci/cluster` builds the image that this test then buys on.",
      },
      {
        check: "Automated deploy",
        level: "C",
        asks: "One command deploys it.",
        tests: [
          ["tests/cluster/purchase.cluster.ts", "sells a thing from its listing to the seller's balance, and the books are right"],
        ],
        note: "The command is `helm upgrade --install`.",
      },
      {
        check: "Automatic deploy",
        level: "B",
        asks: "CI deploys it.",
        note: "Into which cluster, and after whose yes, is the installation's: the same command from its own pipeline.",
      },
      {
        check: "Gradual deploy",
        level: "A",
        asks: "A new version can get a part of the calls first.",
        tests: [["tests/readiness/pods.test.ts", "gives a canary the share of its calls that the values say, and nobody else's"]],
      },
      {
        check: "Automated rollback",
        level: "B",
        asks: "One command goes back.",
        tests: [["tests/runtime/migrations-landed.test.ts", "sells, pays out and keeps the books on MariaDB, where it knows it"]],
        note: "The command is `helm rollback`; it is safe because the older program runs on the newer tables.",
      },
      {
        check: "Automatic rollback",
        level: "C",
        asks: "A bad version goes back by itself.",
        tests: [["tests/readiness/pods.test.ts", "is replaced pod by pod, a new one first"]],
        note: "A version that does not become ready replaces no pod; with `helm upgrade --atomic` it goes back by itself.",
      },
    ],
  },
  {
    title: "Observability",
    page: "pre-production-checklist",
    lines: [
      {
        check: "Tracing",
        level: "C",
        asks: "Calls are traced, through every service.",
        tests: [
          [
            "tests/telemetry/purchase.test.ts",
            "is one trace from PlaceOrder through the services to what their events bring about",
          ],
          [
            "tests/processes/telemetry.test.ts",
            "is one trace over the network and through Redis, with each span under one that was told",
          ],
        ],
      },
      {
        check: "Timeboard",
        level: "B",
        asks: "A dashboard shows it over time.",
        tests: [
          [
            "tests/readiness/signals.test.ts",
            "has for every service its calls, what is eaten and left of their error budgets, and how long they take",
          ],
        ],
      },
      {
        check: "Screenboard",
        level: "A",
        asks: "A board shows at a glance how it is.",
        tests: [
          [
            "tests/readiness/signals.test.ts",
            "is installed by the chart where Grafana looks for it, with the alert rules where Prometheus does",
          ],
        ],
        note: "It is the same dashboard, a row for each service.",
      },
      {
        check: "GCP metrics",
        level: "B",
        asks: "The cloud's own measurements are collected.",
        note: "They belong to the cloud account and not to the program; what the program asks of its stores it measures itself.",
      },
      {
        check: "Actionable alert",
        level: "C",
        asks: "Alerts exist, and say what to do.",
        tests: [
          [
            "tests/mesh/runbooks.test.ts",
            "is a page and a section of it that are there, for every alert, and says all that a person on call asks",
          ],
          ["tests/mesh/alert-rules.test.ts", "are silent while a method keeps its promise"],
        ],
      },
      {
        check: "Warning alert",
        level: "B",
        asks: "What can wait becomes a ticket.",
        tests: [
          ["tests/mesh/alert-rules.test.ts", "write a ticket for a budget that burns slowly"],
          ["tests/readiness/signals.test.ts", "says how urgent it is, so that a page and a ticket go different ways"],
        ],
        note: "Where tickets go is told to Alertmanager, by the label `severity`.",
      },
      {
        check: "Critical alert",
        level: "B",
        asks: "What cannot wait wakes a person.",
        tests: [["tests/mesh/alert-rules.test.ts", "page for the method whose error budget burns fast, and for no other"]],
        note: "Whom it wakes is told to Alertmanager, by the label `severity`.",
      },
      {
        check: "OnCall rotation",
        level: "B",
        asks: "It is settled whom to wake, and whom next.",
        note: "It is about who runs the platform, which this repository does not know.",
      },
      {
        check: "OnCall playbooks",
        level: "A",
        asks: "Who is woken finds what to do.",
        tests: [["tests/mesh/runbooks.test.ts", "stands in the list of runbooks, and leads to nothing that is not there"]],
      },
      {
        check: "Log to STDOUT",
        level: "C",
        asks: "The log goes to the standard streams.",
        tests: [
          [
            "tests/runtime/log.test.ts",
            "loses no line when the process fails or ends by itself, and keeps a warning waiting for nobody",
          ],
        ],
      },
      {
        check: "Log as JSON",
        level: "C",
        asks: "The log is for machines.",
        tests: [
          ["tests/runtime/log.test.ts", "writes one JSON object a line for machines"],
          ["tests/readiness/pods.test.ts", "of a service writes its log as JSON, to where the cluster gathers it"],
        ],
      },
      {
        check: "Log with annotation",
        level: "C",
        asks: "Lines of one request can be found.",
        tests: [["tests/telemetry/traces.test.ts", "stand in each line of the log that is written within them"]],
      },
      {
        check: "Profiling",
        level: "B",
        asks: "It is profiled while it runs.",
        note: "Not all the time: `node --cpu-prof` by the environment (`NODE_OPTIONS`) profiles a pod when asked, `npm run bench` what a call costs.",
      },
      {
        check: "Error tracking",
        level: "B",
        asks: "Errors are gathered where they can be followed.",
        tests: [
          ["tests/telemetry/calls.test.ts", "name a reason, and what nobody named by its id in the log alone"],
          ["tests/runtime/calls.test.ts", "tell nothing inner, only the id of the log line"],
        ],
        note: "In the log and in spans; there is no tracker of its own.",
      },
    ],
  },
];
