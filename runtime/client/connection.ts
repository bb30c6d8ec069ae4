import { isIPv4, isIPv6 } from "node:net";
import { Channel, type ChannelOptions, connectivityState, credentials } from "@grpc/grpc-js";

/** How one place, or several that do the same, are connected to. */
export interface ConnectionOptions {
  /** `http://host:port`, `https://…` with TLS; calls take turns among all addresses of the name, or among several URLs with IP addresses. */
  readonly baseUrl: string | readonly string[];
  /** What the place is called by those who serve it, where that is not how it is reached: one gateway serves many hosts. */
  readonly authority?: string | undefined;
  /** How long a connection may take to be made, in ms; 2000 unless given. */
  readonly connectTimeoutMs?: number;
  /** How often a connection is asked whether it lives, in ms; 10,000 unless given. */
  readonly pingIntervalMs?: number;
  /** How long it may take to answer, in ms; 5000 unless given. Then it is given up, and the calls on it with it. */
  readonly pingTimeoutMs?: number;
  /** The largest message that is read, in bytes after decompression; 16 MiB unless given. */
  readonly readMaxBytes?: number;
  /** The largest message that is sent, in bytes before compression; 4 MiB unless given. */
  readonly writeMaxBytes?: number;
  /** Messages are sent compressed; not unless given. What is received may always be. */
  readonly sendCompression?: "gzip";
}

/** Why there is no connection. The call was not sent. */
export class NoConnection extends Error {}

const CONNECT_TIMEOUT_MS = 2_000;
const PING_INTERVAL_MS = 10_000;
const PING_TIMEOUT_MS = 5_000;
const READ_MAX_BYTES = 16 * 1024 * 1024;
const WRITE_MAX_BYTES = 4 * 1024 * 1024;
/** After an attempt to connect has failed, the next one is made no sooner, in ms. */
const FAILED_REST_MS = 25;

/**
 * The connections to one place. grpc-js balances, looks up names and keeps connections alive; but it has no bound for making a connection, and after a
 * failed one calls fail for as long as it rests. So a channel that cannot connect is given up, and the next call begins with a new one.
 */
export class Connection {
  /** The place for people, such as `souk-order:8080`. */
  readonly name: string;
  /** The beginning of its methods' URLs. */
  readonly origin: string;
  readonly #target: string;
  readonly #secure: boolean;
  readonly #options: ChannelOptions;
  readonly #connectTimeoutMs: number;
  #channel: Channel | undefined;
  #connecting: Promise<Channel> | undefined;
  #failedTime = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(options: ConnectionOptions) {
    const urls = [options.baseUrl].flat().map((url) => new URL(url));
    this.name = urls.map((url) => hostPort(url)).join(",");
    this.#target = targetOf(urls);
    this.origin = (urls[0] as URL).origin;
    this.#secure = urls[0]?.protocol === "https:";
    this.#connectTimeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    this.#options = channelOptions(options, options.authority ?? hostPort(urls[0] as URL));
  }

  /** A channel that is connected, at once or as soon as there is one. Rejects with NoConnection. */
  ready(): Channel | Promise<Channel> {
    const channel = this.#channel;
    if (channel !== undefined && channel.getConnectivityState(false) === connectivityState.READY) return channel;
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  /** Ends calls that wait for a connection, and every connection once its calls have ended. */
  close(): void {
    this.#closed = true;
    this.#channel?.close();
  }

  async #connect(): Promise<Channel> {
    if (this.#closed) throw new NoConnection("This client is closed.");
    if (performance.now() - this.#failedTime < FAILED_REST_MS) throw new NoConnection(`${this.name} cannot be reached.`);
    let channel = this.#channel;
    if (channel?.getConnectivityState(false) === connectivityState.TRANSIENT_FAILURE) {
      // It rests after a failure that no call has seen.
      channel.close();
      channel = undefined;
    }
    channel ??= this.#open();
    const outcome = await settled(channel, this.#connectTimeoutMs);
    if (outcome === undefined) return channel;
    if (this.#closed) throw new NoConnection("This client is closed.");
    this.#failedTime = performance.now();
    this.#channel = undefined;
    channel.close();
    throw new NoConnection(`${this.name} ${outcome}.`);
  }

  #open(): Channel {
    const security = this.#secure ? credentials.createSsl() : credentials.createInsecure();
    this.#channel = new Channel(this.#target, security, this.#options);
    return this.#channel;
  }
}

/** Waits until a channel is connected (undefined), or gives why it is not. */
function settled(channel: Channel, timeoutMs: number): Promise<string | undefined> {
  const deadline = Date.now() + timeoutMs;
  return new Promise((resolve) => {
    const look = (tooLate?: Error) => {
      const state = channel.getConnectivityState(false);
      if (state === connectivityState.IDLE) channel.getConnectivityState(true);
      if (state === connectivityState.READY) resolve(undefined);
      else if (state === connectivityState.TRANSIENT_FAILURE) resolve("cannot be reached");
      else if (state === connectivityState.SHUTDOWN) resolve("was closed");
      else if (tooLate !== undefined) resolve(`was not connected to within ${timeoutMs} ms`);
      else channel.watchConnectivityState(state, deadline, look);
    };
    look();
  });
}

function hostPort(url: URL): string {
  return `${url.hostname}:${url.port || (url.protocol === "https:" ? 443 : 80)}`;
}

function targetOf(urls: readonly URL[]): string {
  for (const { href, protocol, pathname } of urls) {
    if ((protocol !== "http:" && protocol !== "https:") || pathname !== "/") {
      throw new Error(`"${href}" is no place to connect to: it must be like http://host:port.`);
    }
  }
  if (urls.length === 1) return `dns:${hostPort(urls[0] as URL)}`;
  if (new Set(urls.map(({ protocol }) => protocol)).size > 1) throw new Error("Either all places are reached with TLS or none.");
  const hosts = urls.map(({ hostname }) => hostname.replace(/^\[|\]$/g, ""));
  const list = urls.map(hostPort).join(",");
  if (hosts.length > 0 && hosts.every(isIPv4)) return `ipv4:${list}`;
  if (hosts.length > 0 && hosts.every(isIPv6)) return `ipv6:${list}`;
  throw new Error(`Several places are named by IP addresses of one family, not ${list || "none"}: give their name in DNS instead.`);
}

function channelOptions(options: ConnectionOptions, authority: string): ChannelOptions {
  return {
    "grpc.default_authority": authority,
    "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    "grpc.service_config_disable_resolution": 1,
    // Failed calls are tried again in one place, which is not this one.
    "grpc.enable_retries": 0,
    "grpc.enable_channelz": 0,
    "grpc.enable_http_proxy": 0,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 3_000,
    "grpc.dns_min_time_between_resolutions_ms": 1_000,
    "grpc.keepalive_time_ms": options.pingIntervalMs ?? PING_INTERVAL_MS,
    "grpc.keepalive_timeout_ms": options.pingTimeoutMs ?? PING_TIMEOUT_MS,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_receive_message_length": options.readMaxBytes ?? READ_MAX_BYTES,
    "grpc.max_send_message_length": options.writeMaxBytes ?? WRITE_MAX_BYTES,
    ...(options.sendCompression === "gzip" ? { "grpc.default_compression_algorithm": 2 } : {}),
  };
}
