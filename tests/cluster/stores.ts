import { type Outside, putBeside } from "./beside.ts";
import { tool } from "./cluster.ts";

const IMAGES = {
  mariadb: process.env.SOUK_CLUSTER_MARIADB_IMAGE ?? "localhost/mariadb:10.11",
  redis: process.env.SOUK_CLUSTER_REDIS_IMAGE ?? "localhost/redis:7.0",
};
/** Good for a namespace that nobody outside the cluster can reach, and that goes with its test. */
const PASSWORD = "only-for-tests";
const PORTS = { mariadb: 3306, redis: 6379 };

/** A store that can be killed. */
export type StoreName = keyof typeof PORTS;

/** Where stores are. */
export interface StoresPlace {
  /** The full name of MariaDB's Service. */
  readonly mariadb: string;
  readonly redisUrl: string;
}

/** Where the stores of a namespace's own are. */
export function ownPlace(namespace: string): StoresPlace {
  const host = (name: StoreName) => `${name}.${namespace}.svc.cluster.local`;
  return { mariadb: host("mariadb"), redisUrl: `redis://:${PASSWORD}@${host("redis")}:${PORTS.redis}` };
}

/** Puts a MariaDB and a Redis into a namespace, as a managed service would be. */
export function openStores(namespace: string): Promise<void> {
  return putBeside(namespace, [
    store("mariadb", {
      env: [
        { name: "MARIADB_ROOT_PASSWORD", value: PASSWORD },
        { name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
      ],
      folders: { data: "/var/lib/mysql", run: "/run/mysqld", tmp: "/tmp" },
      // Over TCP, which it takes only when all is there.
      ready: 'MYSQL_PWD="$MARIADB_ROOT_PASSWORD" exec mariadb -h "$POD_IP" -u root -e "SELECT 1"',
    }),
    store("redis", {
      args: ["--requirepass", PASSWORD, "--protected-mode", "no"],
      folders: { data: "/data" },
      ready: `REDISCLI_AUTH=${PASSWORD} redis-cli ping | grep -q PONG`,
    }),
  ]);
}

/** Kills a store as a machine that fails would: its process is gone at once, and its files stay. */
export async function killStore(namespace: string, name: StoreName): Promise<void> {
  const program = { mariadb: "mariadbd", redis: "redis-server" }[name];
  const script = `for each in /proc/[0-9]*; do [ "$(cat $each/comm 2>/dev/null)" = ${program} ] && kill -9 \${each#/proc/} && exit 0; done; exit 1`;
  await tool("kubectl", "-n", namespace, "exec", `deploy/${name}`, "--", "bash", "-c", script);
}

interface Store extends Pick<Outside, "env" | "args" | "folders"> {
  /** Succeeds when the store takes questions. */
  readonly ready: string;
}

function store(name: StoreName, { ready, ...settings }: Store): Outside {
  return {
    name,
    image: IMAGES[name],
    port: { number: PORTS[name], name, serviceName: `tcp-${name}` },
    readinessProbe: { exec: { command: ["bash", "-c", ready] } },
    memory: "768Mi",
    user: 999,
    // Its containers share their processes, or the first one of each could not be killed from within.
    pod: { shareProcessNamespace: true, terminationGracePeriodSeconds: 5 },
    ...settings,
  };
}
