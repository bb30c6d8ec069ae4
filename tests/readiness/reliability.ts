import type { Section } from "./checklist.ts";

/** That it stays up, keeps what it must, and can be found out about. */
export const RELIABILITY: readonly Section[] = [
  {
    title: "Reliability",
    page: "pre-production-checklist",
    lines: [
      {
        check: "Manual Scale",
        level: "C",
        asks: "There can be more pods of it.",
        tests: [
          ["tests/readiness/pods.test.ts", "may have as many pods as its values say, or follow its use of processors"],
          ["tests/processes/purchase.test.ts", "reserves on one process what was released on another the call before"],
        ],
      },
      {
        check: "Auto Scale",
        level: "B",
        asks: "It grows and shrinks with its load.",
        tests: [["tests/readiness/pods.test.ts", "may have as many pods as its values say, or follow its use of processors"]],
        note: "Switched on by service (`autoscaling.enabled`).",
      },
      {
        check: "CPU req/limit",
        level: "C",
        asks: "It says what processors it needs and may take.",
        tests: [["tests/readiness/pods.test.ts", "asks for processors and memory, and is bounded in memory"]],
        note: "No limit by default, on purpose: a throttled event loop holds up every call at once, and what is too much is shed instead; `resources.limits.cpu` sets one.",
      },
      {
        check: "Memory req/limit",
        level: "C",
        asks: "It asks for as much memory as it may take.",
        tests: [["tests/readiness/pods.test.ts", "asks for processors and memory, and is bounded in memory"]],
        note: "By default it asks for less than it may take, so that a small cluster holds it; set both alike where nodes are full (`resources`).",
      },
      {
        check: "Capacity planning",
        level: "B",
        asks: "It carries the load that is expected.",
        tests: [
          [
            "tests/load/run.test.ts",
            "runs the whole purchase in several processes, and its exit code says whether a promise is missed",
          ],
          [
            "tests/edges/shedding.test.ts",
            "keeps the event loop turning under three times what can be done, and lets nearly all commands through",
          ],
        ],
        note: "`npm run load` weighs an installation against its promises; `docs/performance.md` has what a call costs.",
      },
      {
        check: "Zero downtime deploy",
        level: "B",
        asks: "Nobody notices a deploy.",
        tests: [
          ["tests/edges/restarts.test.ts", "answers every call it has begun, and loses none of a client that comes back: …"],
          [
            "tests/processes/rolling.proof.test.ts",
            "fails no call of those who call them, directly or through another process, and ends none of them badly",
          ],
        ],
      },
      {
        check: "Graceful shutdown",
        level: "B",
        asks: "It ends what it has begun.",
        tests: [
          ["tests/edges/ending.test.ts", "says so first, takes calls until that was noticed, and ends with 0"],
          ["tests/runtime/server.test.ts", "finishes the calls in flight, takes no new ones, and is done when they are"],
          ["tests/runtime/jobs.test.ts", "under way are finished by a stop, and told after its grace"],
        ],
      },
      {
        check: "Graceful degradation",
        level: "B",
        asks: "It does what it can while others are away.",
        tests: [
          ["tests/processes/purchase.test.ts", "goes on while a process is ended and started again"],
          [
            "tests/runtime/cache.test.ts",
            "loads while Redis does not answer, says that it cannot tell of changes, and uses it again",
          ],
          [
            "tests/search/service.test.ts",
            "serves on with the old index when a rebuild fails, which is tried again and then given up",
          ],
          ["tests/runtime/replica.test.ts", "fail no more than others when the replica hangs, dies, and comes back"],
          ["tests/telemetry/collector.test.ts", "answers every call while the collector hangs, refuses and is gone"],
        ],
      },
      {
        check: "PreStop",
        level: "B",
        asks: "It takes calls until everybody knows that it ends.",
        tests: [
          ["tests/edges/ending.test.ts", "says so first, takes calls until that was noticed, and ends with 0"],
          ["tests/charts/souk.test.ts", "lets no pod end before its calls have, in …"],
        ],
        note: "In a cluster by `preStop`; elsewhere the program waits itself after SIGTERM (`SOUK_DRAIN_DELAY_MS`), and says meanwhile that it is not ready.",
      },
      {
        check: "PDB",
        level: "C",
        asks: "Maintenance takes few pods at a time.",
        tests: [
          [
            "tests/charts/souk.test.ts",
            "gives every service an identity, an address, a network policy and a bound of its disruptions, in …",
          ],
        ],
      },
      {
        check: "Liveness Probe",
        level: "C",
        asks: "One that hangs is restarted.",
        tests: [["tests/readiness/pods.test.ts", "of a service says when it has started, lives, and is ready"]],
      },
      {
        check: "Readiness Probe",
        level: "B",
        asks: "One that is not ready gets no calls.",
        tests: [
          ["tests/runtime/health.test.ts", "answers grpc.health.v1 for the process, and for each contract what its own service is"],
          ["tests/search/service.test.ts", "builds its index before it is ready, and tries again until the catalog answers"],
        ],
      },
      {
        check: "Timeout",
        level: "B",
        asks: "Nothing that goes over a network waits for ever.",
        tests: [
          ["tests/charts/policies.test.ts", "bound every method's route, and retry only what declares it"],
          ["tests/processes/peers.test.ts", "that does not answer costs its caller no more than the method's time"],
          ["tests/runtime/mariadb.test.ts", "waits for a connection no longer than the deadline"],
          ["tests/runtime/cache.test.ts", "waits for a Redis that does not answer a few times only"],
          ["tests/telemetry/collector.test.ts", "that hangs costs calls nothing: what it does not take is dropped and counted"],
          [
            "tests/purchase/bad-timing.test.ts",
            "while the processor does not answer: the purchase goes on, and a repeat gets its outcome, one order and one payment",
          ],
        ],
      },
      {
        check: "Smart retry",
        level: "A",
        asks: "Retries are few, spread, and of what is safe to repeat.",
        tests: [
          [
            "tests/client/retries.test.ts",
            "is not tried again when it is a command that is not idempotent, whatever its policy says",
          ],
          ["tests/client/retries.test.ts", "costs a server that is down a tenth more at most"],
          ["tests/mesh/drift.test.ts", "retry no command that is not replayed by its request_id"],
          ["tests/charts/policies.test.ts", "count no more retries at once than their budget, for every workload"],
        ],
      },
    ],
  },
  {
    title: "Security",
    page: "pre-production-checklist",
    lines: [
      {
        check: "Security review",
        level: "B",
        asks: "Somebody else has looked at it.",
        note: "A person's judgement; what such a review asks for is in the tests of policies, tokens and bad input.",
      },
      {
        check: "Non-root user",
        level: "C",
        asks: "It runs as nobody.",
        tests: [
          ["tests/charts/souk.test.ts", "makes every pod as restricted as can be and bounds what it uses, in …"],
          ["tests/readiness/repository.test.ts", "runs as nobody, and Node itself hears the signal to end"],
        ],
      },
      {
        check: "Secrets",
        level: "C",
        asks: "Secrets are Kubernetes' secrets.",
        tests: [
          ["tests/charts/souk.test.ts", "runs one image of a named version, and knows passwords by reference only, in …"],
          ["tests/readiness/repository.test.ts", "holds no private key and no credential"],
          ["tests/readiness/repository.test.ts", "holds no secret and no setting that is one"],
        ],
      },
      {
        check: "Non-sensitive log",
        level: "C",
        asks: "The log tells no secret and nothing personal.",
        tests: [
          ["tests/runtime/log.test.ts", "writes no secret, wherever it stands"],
          ["tests/telemetry/purchase.test.ts", "has no value that somebody wrote, no token and no statement"],
          ["tests/runtime/log.test.ts", "writes errors with their causes, and not the values of a statement"],
        ],
      },
    ],
  },
  {
    title: "Accessibility",
    page: "pre-production-checklist",
    lines: [
      {
        check: "Design Doc",
        level: "C",
        asks: "The design is written down as it is.",
        tests: [
          ["tests/readiness/repository.test.ts", "has its reference, its design and its operations a click from the first page"],
        ],
      },
      {
        check: "Description",
        level: "C",
        asks: "It says what it is for.",
        tests: [["tests/readiness/repository.test.ts", "says what each service is for, and owns its tables alone"]],
      },
      {
        check: "Contact",
        level: "C",
        asks: "Its owners can be reached.",
        note: "Who runs an installation is its own to say, such as by `defaults.labels` on every pod.",
      },
      {
        check: "Source repo",
        level: "C",
        asks: "Its source can be found.",
        note: "This is it; an installation names its own copy, and its alerts lead there (`monitoring.rules.runbookBaseUrl`).",
      },
      {
        check: "Docs",
        level: "C",
        asks: "Who uses it finds how.",
        tests: [
          ["tests/readiness/repository.test.ts", "has its reference, its design and its operations a click from the first page"],
        ],
        note: '`docs/api/reference.md` is made from the contract, and the check "generated" refuses an old one.',
      },
      {
        check: "SLOs",
        level: "C",
        asks: "The dashboard shows the objectives.",
        tests: [
          [
            "tests/readiness/signals.test.ts",
            "has for every service its calls, what is eaten and left of their error budgets, and how long they take",
          ],
        ],
      },
      {
        check: "Error budget",
        level: "C",
        asks: "The dashboard shows what is left of the budget.",
        tests: [
          [
            "tests/readiness/signals.test.ts",
            "has for every service its calls, what is eaten and left of their error budgets, and how long they take",
          ],
        ],
      },
    ],
  },
];
