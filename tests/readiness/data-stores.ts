import type { Section } from "./checklist.ts";

const CLOUD = "It is a setting of the database server, which the chart does not make; ";

/** What it asks of data, of MySQL as a service, and of Spanner; and what we ask of ourselves besides. */
export const DATA_STORES: readonly Section[] = [
  {
    title: "Data Storage",
    page: "pre-production-checklist",
    lines: [
      {
        check: "Data Replication",
        level: "B",
        asks: "Analysts get a copy where one is needed.",
        note: "None is needed here: events are part of the contract, and an installation that has a warehouse takes them from there.",
      },
      {
        check: "Minimal Operator Privileges",
        level: "B",
        asks: "People may do little, and it is kept who did what.",
        tests: [
          ["tests/ops/dead-letters.test.ts", "are shown to operators only, by each service to ops only"],
          ["tests/ops/dead-letters.test.ts", "are tried again when an operator says so, and it is kept who did"],
          ["tests/ops/dead-letters.test.ts", "are given up for good with who and why"],
        ],
        note: "Who may log in to the servers is yours to grant.",
      },
      {
        check: "Recovery",
        level: "B",
        asks: "It comes back from a backup, and that was tried.",
        tests: [
          [
            "tests/operations/drill.test.ts",
            "gives back the marketplace of the backup, with right books, and what was under way comes to its end",
          ],
        ],
      },
      {
        check: "Fast Recovery",
        level: "A",
        asks: "That takes less than 2 hours, and is practised.",
        tests: [
          [
            "tests/operations/drill.test.ts",
            "gives back the marketplace of the backup, with right books, and what was under way comes to its end",
          ],
        ],
        note: "Each `npm test` goes through the page's lines; how long yours take depends on how much there is, and is to be practised with that.",
      },
      {
        check: "PIT Recovery",
        level: "A",
        asks: "It comes back to any moment in less than 2 hours.",
        tests: [
          ["tests/operations/drill.test.ts", "says in the page's words when the processor's books are newer than the snapshot"],
        ],
        note: "By the server's binary logs, which are not the marketplace's; afterwards the books say what happened since.",
      },
      {
        check: "Timeboard",
        level: "B",
        asks: "A dashboard shows the databases.",
        note: "The server's own is its vendor's; how long statements take and what waits in the tables is in `/metrics`.",
      },
    ],
  },
  {
    title: "GCP Cloud SQL (MySQL)",
    page: "pre-production-checklist",
    about: "For MySQL and MariaDB of whatever vendor.",
    lines: [
      {
        check: "Maintenance Window",
        level: "C",
        asks: "The server is maintained when somebody is there.",
        note: `${CLOUD}the vendor's console sets it.`,
      },
      {
        check: "Regional HA",
        level: "B",
        asks: "The server survives the loss of a zone.",
        note: `${CLOUD}give a URL whose host follows the primary.`,
      },
      {
        check: "Read Replicas",
        level: "A",
        asks: "Reads that may be old go to replicas.",
        tests: [["tests/runtime/replica.test.ts", "are answered by the replica while it follows, and others never are"]],
      },
      {
        check: "Missing Master",
        level: "A",
        asks: "Reads go on without the primary.",
        tests: [["tests/runtime/settings.test.ts", "answers plain reads UNAVAILABLE, and reads again once the server is back"]],
        note: "Not all of them: listings that are cached and search are answered, other reads are UNAVAILABLE until there is a primary, because what they answer must be true.",
      },
      {
        check: "Failover Tests",
        level: "B",
        asks: "A failover hurts little, and ends.",
        tests: [
          ["tests/runtime/mariadb.test.ts", "answers UNAVAILABLE when the connection breaks, and goes on with another"],
          [
            "tests/crash/stores.proof.test.ts",
            "keeps what it acknowledged, ends everything once, and every consumer knows what its owner does, after … kills",
          ],
        ],
      },
      {
        check: "Operational Guidelines",
        level: "C",
        asks: "The server is run as its vendor says.",
        tests: [["tests/runtime/settings.test.ts", "settings under which what was acknowledged may be lost are warned of"]],
        note: "What the marketplace needs is looked at by each start; the rest is between you and the vendor.",
      },
      {
        check: "Automatic Backups",
        level: "C",
        asks: "The server is backed up by itself.",
        note: `${CLOUD}\`docs/operations.md\` says what belongs to a backup.`,
      },
      {
        check: "Automatic Storage Increase",
        level: "B",
        asks: "The server's disk grows.",
        note: `${CLOUD}what the runtime keeps itself is bounded by its retention.`,
        tests: [["tests/runtime/jobs.test.ts", "keep the runtime's own tables small"]],
      },
      {
        check: "Replication Lag",
        level: "B",
        asks: "A replica that is behind is noticed.",
        tests: [["tests/runtime/replica.test.ts", "are answered by the primary while the replica falls behind"]],
        note: "It is left alone after 5 s, and the log says so; the server's own alert is its vendor's.",
      },
      {
        check: "CPU",
        level: "C",
        asks: "The server has processors to spare.",
        tests: [["tests/explain/plans.test.ts", "find their rows by an index, sort little and read little"]],
        note: "The server's own alert is its vendor's.",
      },
      {
        check: "Minimal Data Privileges",
        level: "B",
        asks: "The program's users may do what it needs, and no more.",
        tests: [
          ["tests/runtime/settings.test.ts", "rows and no tables are enough rights where migrations run elsewhere"],
          ["tests/tooling/stores.test.ts", "give each service a database that no other service's user can read"],
        ],
      },
    ],
  },
  {
    title: "GCP Cloud Spanner",
    page: "pre-production-checklist",
    lines: [
      "Regional Configuration C",
      "Global Configuration B",
      "SLA Exclusions C",
      "Automatic Backups C",
      "CPU C",
      "Disk usage C",
      "Sessions B",
    ].map((each) => ({
      check: each.slice(0, -2),
      level: each.slice(-1) as "B" | "C",
      asks: "Is about Spanner.",
      note: "There is no Spanner here.",
    })),
  },
  {
    title: "What we ask besides",
    lines: [
      {
        check: "Audit of money",
        asks: "Every movement of money is kept, and adds up.",
        tests: [
          ["tests/ops/books-of-all.test.ts", "finds the books right, and counts what it compared"],
          [
            "tests/crash/kill.test.ts",
            "has every order that it acknowledged, finishes or takes back every other, and its books are right",
          ],
        ],
      },
      {
        check: "Repeated commands",
        asks: "A command that is repeated takes effect once.",
        tests: [["tests/purchase/bad-repeats.test.ts", "at once, twenty in all, take effect once and get one answer"]],
      },
      {
        check: "Lost messages",
        asks: "An event is applied once, whatever Redis loses.",
        tests: [
          [
            "tests/runtime/redis-bus.test.ts",
            "everything by being killed and started empty, each consumer still gets 10,000 events once and in order",
          ],
        ],
      },
      {
        check: "Dependencies",
        asks: "What it is made of is known to the byte.",
        tests: [
          ["tests/readiness/repository.test.ts", "depends on exact versions, each with the hash of what it was when it was tried"],
        ],
      },
      {
        check: "Cluster's API",
        asks: "Who breaks in finds no way on.",
        tests: [
          ["tests/charts/souk.test.ts", "makes every pod as restricted as can be and bounds what it uses, in …"],
          [
            "tests/charts/souk.test.ts",
            "gives every service an identity, an address, a network policy and a bound of its disruptions, in …",
          ],
        ],
      },
      {
        check: "Loss of a zone",
        asks: "Pods of a service are not all in one place.",
        tests: [["tests/readiness/pods.test.ts", "is spread over zones and nodes"]],
      },
      {
        check: "Bad input",
        asks: "Whatever comes is answered, and ends nothing.",
        tests: [
          ["tests/policy/contract.test.ts", "bounds every string, list and number that a caller sends"],
          ["tests/edges/slow.test.ts", "holds no connection by saying nothing, however many do, while others are served"],
        ],
      },
    ],
  },
];
