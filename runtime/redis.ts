import { Cluster, Redis, type RedisOptions } from "ioredis";
import type { Log } from "#runtime/log.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";

const CONNECT_TIMEOUT_MS = 2_000;
const COMMAND_TIMEOUT_MS = 2_000;
const RECONNECT_MAX_MS = 1_000;
/** How often a connection shows that it is one: a listener sends nothing else, and would wait for a machine that is gone. */
const PING_MS = 5_000;
/** How often a command follows a slot that moved, in a Cluster. */
const REDIRECTIONS_MAX = 4;
/** What clocks may differ by before it is said. */
const SKEW_MAX_MS = 5_000;
const FORMS =
  "redis://host:6379, rediss://host:6380 (TLS), redis+sentinel://host:26379,host:26379/name or redis+cluster://host:6379,host:6379";

/** A connection to Redis, whatever the form of its URL. It connects again by itself. */
export type RedisClient = Redis | Cluster;

/** What a connection is opened with. */
export interface RedisClientOptions {
  /**
   * `redis://user:password@host:port/db`; `rediss://` with TLS. `redis+sentinel://…@host:port,host:port/<name>/<db>` asks Sentinels for the
   * primary of that name. `redis+cluster://…@host:port,host:port` is a Cluster. Both exist with `rediss+`, too.
   */
  readonly url: string;
  readonly log: Log;
  /** What it is for; stands in Redis' list of clients and in the log. */
  readonly name: string;
  /** The longest a command may take; 2 s unless given. */
  readonly commandTimeoutMs?: number;
  readonly observer?: Observer | undefined;
}

type CommonOptions = Pick<RedisOptions, "enableOfflineQueue"> & { readonly retryStrategy: (times: number) => number };

type Alone = Pick<RedisOptions, "host" | "port" | "tls" | "enableReadyCheck">;

interface Place {
  readonly kind: "single" | "sentinel" | "cluster";
  readonly tls: boolean;
  readonly username?: string;
  readonly password?: string;
  readonly hosts: readonly { host: string; port: number }[];
  /** The primary's name among the Sentinels. */
  readonly primary: string;
  readonly db: number;
}

/**
 * Opens a connection; it is made in the background. While there is none a command fails at once, none is sent twice by itself, and none takes longer
 * than its time: whoever uses Redis knows what to do without it. The one who opens it calls `disconnect()`.
 *
 * @throws Error which part of the URL is wrong and which forms there are; never with the password.
 */
export function openRedis(options: RedisClientOptions): RedisClient {
  const place = placeOf(options.url);
  const timeout = options.commandTimeoutMs ?? COMMAND_TIMEOUT_MS;
  const common = {
    ...(place.username === undefined ? {} : { username: place.username }),
    ...(place.password === undefined ? {} : { password: place.password }),
    ...(place.tls ? { tls: {} } : {}),
    connectionName: `souk.${options.name}`,
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: timeout,
    // A server that hangs, or whose machine is gone, closes nothing: without this its connection would be kept for a quarter of an hour.
    socketTimeout: 2 * timeout,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    // Who listens subscribes at each "ready". The library would, too, and nobody hears when that fails: an unhandled rejection ends the process.
    autoResubscribe: false,
    retryStrategy: backoffMs,
    // A primary that became a replica: the name leads to another one by now.
    reconnectOnError: (error: Error) => error.message.includes("READONLY"),
  } satisfies RedisOptions;
  const client = connect(place, common);
  if (options.observer !== undefined) observe(client, options.name, options.observer);
  let away = false;
  client.on("error", (error: unknown) => {
    if (!away) options.log.warn({ redis: options.name, err: error }, "Redis is out of reach");
    away = true;
  });
  client.on("ready", () => {
    if (away) options.log.info({ redis: options.name }, "Redis is back");
    away = false;
  });
  const pinging = setInterval(() => {
    if (client.status === "ready") client.ping().catch(() => {});
  }, PING_MS);
  pinging.unref();
  client.on("end", () => clearInterval(pinging));
  return client;
}

/** The library's own tracing makes text of all arguments of a command, which are whole events. */
function observe(client: RedisClient, name: string, observer: Observer): void {
  const send = client.sendCommand.bind(client) as (...args: Parameters<Redis["sendCommand"]>) => unknown;
  client.sendCommand = (...args: Parameters<Redis["sendCommand"]>) => {
    const [command] = args;
    const ended = observer.redisCommand(command.name, name);
    command.promise.then(
      () => ended(),
      (error: unknown) => ended(error),
    );
    return send(...args);
  };
}

function connect(place: Place, common: CommonOptions): RedisClient {
  if (place.kind === "cluster") return new PromptCluster(place.hosts, common);
  if (place.kind === "sentinel") {
    const sentinel = place.tls ? { enableTLSForSentinelMode: true, sentinelTLS: {} } : {};
    return new Redis({ ...common, ...sentinel, sentinels: [...place.hosts], name: place.primary, db: place.db });
  }
  return new Redis({ ...common, ...place.hosts[0], db: place.db });
}

/**
 * A Cluster that refuses commands while it is out of reach. The library's own way to that, without a queue, also refuses those for a node that it is
 * just connecting to, which it begins with the first command.
 */
class PromptCluster extends Cluster {
  /** How its first node is connected to, alone. */
  readonly first: Alone;

  constructor(hosts: Place["hosts"], common: CommonOptions) {
    const { retryStrategy: clusterRetryStrategy, enableOfflineQueue: _, ...redisOptions } = common;
    super([...hosts], {
      // A node that is loading refuses, rather than to keep a command that may be given up meanwhile.
      redisOptions: { ...redisOptions, enableReadyCheck: false },
      slotsRefreshTimeout: CONNECT_TIMEOUT_MS,
      clusterRetryStrategy,
      maxRedirections: REDIRECTIONS_MAX,
      // A command whose connection broke may have been done, and one that was given up must not be done later: events would be handed out unseen.
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      // Certificates are of names: the library would look them up and connect to the addresses.
      dnsLookup: (host, callback) => callback(null, host),
    });
    this.first = { ...redisOptions, ...hosts[0] };
  }

  override sendCommand(...[command, stream, node]: Parameters<Cluster["sendCommand"]>): unknown {
    // Its own commands find the nodes.
    if (this.status === "ready" || command.name === "cluster") return super.sendCommand(command, stream, node);
    command.reject(new Error("the Cluster is out of reach."));
    return command.promise;
  }
}

/** Resolves when commands can be sent; rejects with a sentence when that takes longer than `timeoutMs`, or at once when no later try will do better. */
export async function redisReady(client: RedisClient, timeoutMs: number): Promise<void> {
  if (client.status === "ready") return;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let last = "nothing answered";
  const failed = (error: Error) => {
    last = error.message || last;
    const certain = CERTAIN.find(([pattern]) => pattern.test(last));
    if (certain !== undefined) reject(new Error(certain[1](last)));
  };
  const timer = setTimeout(() => reject(new Error(`Redis cannot be reached: ${last}. Check SOUK_REDIS_URL.`)), timeoutMs);
  client.on("ready", resolve);
  const onError = (error: Error) => void refusalOf(client, error).then(failed);
  client.on("error", onError);
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    client.off("ready", resolve);
    client.off("error", onError);
  }
}

/** Why the first node of a Cluster, or the first Sentinel, cannot be connected to: the library only says that none can. Else the error itself. */
async function refusalOf(client: RedisClient, error: Error): Promise<Error> {
  const first = client instanceof PromptCluster ? client.first : sentinelOf(client);
  if (first === undefined) return error;
  const alone = new Redis({ ...first, lazyConnect: true, retryStrategy: null, connectTimeout: CONNECT_TIMEOUT_MS });
  let said: Error | undefined;
  const listen = (each: Error) => {
    said ??= each;
  };
  alone.on("error", listen);
  await alone.connect().catch(listen);
  alone.disconnect();
  return said ?? error;
}

function sentinelOf({ options }: RedisClient): Alone | undefined {
  if (!("sentinels" in options) || options.sentinels?.[0] === undefined) return undefined;
  const { host, port } = options.sentinels[0];
  return {
    enableReadyCheck: false,
    ...(host !== undefined && { host }),
    ...(port !== undefined && { port }),
    ...(options.sentinelTLS !== undefined && { tls: options.sentinelTLS }),
  };
}

/** What no later try changes, and what to do about it. */
const CERTAIN: readonly (readonly [RegExp, (said: string) => string])[] = [
  [/WRONGPASS|NOAUTH/, (said) => `Redis refuses the password: ${said}. Check SOUK_REDIS_URL.`],
  [
    /altnames/i,
    (said) => `The certificate of Redis is not for this host: ${said}. Name the host in SOUK_REDIS_URL as its certificate does.`,
  ],
  [/certificate has expired|not yet valid/i, (said) => `The certificate of Redis cannot be used: ${said}. Renew it.`],
  [
    /certificate/i,
    (said) => `The certificate of Redis is not trusted: ${said}. Name the file of the CA that signed it in NODE_EXTRA_CA_CERTS.`,
  ],
];

/**
 * What is wrong with the server for events, each a sentence with what to do; empty when nothing is. What it does not tell is not judged.
 *
 * @param now this machine's time in milliseconds
 */
export async function redisProblems(client: RedisClient, now: () => number = Date.now): Promise<string[]> {
  const info = await client.info();
  const value = (field: string) => new RegExp(`^${field}:(.*?)\\r?$`, "m").exec(info)?.[1];
  const problems: string[] = [];
  const policy = value("maxmemory_policy");
  if (policy !== undefined && policy !== "noeviction") {
    problems.push(`Redis evicts what it holds when memory is short (maxmemory-policy ${policy}): set it to noeviction.`);
  }
  if (value("aof_enabled") === "0") {
    problems.push("Redis keeps nothing over a restart: set appendonly yes, or every restart publishes the open events again.");
  }
  if (value("role") === "slave" && value("cluster_enabled") !== "1") {
    problems.push(
      "Redis is a replica, which takes no events: name the primary in SOUK_REDIS_URL, or the Sentinels, which know it.",
    );
  }
  const sent = now();
  const [seconds = 0, micros = 0] = (await client.time()).map(Number);
  const received = now();
  const skew = seconds * 1000 + micros / 1000 - (sent + received) / 2;
  if (Math.abs(skew) - (received - sent) / 2 > SKEW_MAX_MS) {
    problems.push(
      `The clock of Redis is ${(Math.abs(skew) / 1000).toFixed(1)} s ${skew > 0 ? "ahead of" : "behind"} this machine's: let both follow the same time servers.`,
    );
  }
  const [major, minor] = (value("redis_version") ?? "").split(".").map(Number);
  if (major !== undefined && (major < 6 || (major === 6 && (minor ?? 0) < 2))) {
    problems.push(`Redis ${value("redis_version")} is too old: 6.2 or newer is needed.`);
  }
  return problems;
}

function placeOf(url: string): Place {
  const match = /^(rediss?)(?:\+(sentinel|cluster))?:\/\/(?:([^:@/]*)(?::([^@/]*))?@)?([^/@?#]+)((?:\/[^/?#]*){0,2})$/.exec(url);
  if (match === null) throw new Error(`the Redis URL is not understood: ${FORMS}.`);
  const [, scheme, form, username, password, hosts = "", path = ""] = match;
  const kind = (form as "sentinel" | "cluster" | undefined) ?? "single";
  const segments = path.split("/").filter((segment) => segment !== "");
  const primary = kind === "sentinel" ? segments.shift() : "";
  const [db = "0"] = segments;
  if (primary === undefined) throw new Error("the Redis URL names no primary: redis+sentinel://host:26379,host:26379/name.");
  if (!/^\d{1,4}$/.test(db) || segments.length > 1 || (kind === "cluster" && db !== "0")) {
    throw new Error(`the Redis URL's database "${db}" is not a number, or not one this form has.`);
  }
  const list = hosts.split(",").map((each) => hostOf(each, kind === "sentinel" ? 26_379 : 6_379));
  if (kind === "single" && list.length > 1) throw new Error(`the Redis URL has several hosts: ${FORMS}.`);
  return {
    kind,
    tls: scheme === "rediss",
    ...(username ? { username: decodeURIComponent(username) } : {}),
    ...(password === undefined ? {} : { password: decodeURIComponent(password) }),
    hosts: list,
    primary,
    db: Number(db),
  };
}

function hostOf(text: string, initialPort: number): { host: string; port: number } {
  const match = /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[2] ?? initialPort);
  if (match === null || port < 1 || port > 65_535) throw new Error(`the Redis URL's host "${text}" is not understood: ${FORMS}.`);
  return { host: (match[1] as string).replace(/^\[|\]$/g, ""), port };
}

function backoffMs(times: number): number {
  return Math.min(RECONNECT_MAX_MS, 20 * 2 ** Math.min(times, 10)) * (0.5 + Math.random() / 2);
}
