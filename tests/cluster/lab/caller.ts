import { type DescMethodUnary, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { openPeers } from "#runtime/peers.ts";
import { type Keys, serviceTokens } from "#runtime/tokens.ts";

/** The contracts of the lab. */
export const CONTRACTS = {
  account: AccountService,
  catalog: CatalogService,
  inventory: InventoryService,
  order: OrderService,
} as const;

/** Calls of one method. */
export interface Job {
  readonly as: string;
  readonly protocol: "gRPC" | "Connect";
  /** Such as "inventory/getReservation". */
  readonly method: `${keyof typeof CONTRACTS}/${string}`;
  /** As JSON; "{id}" stands for an id that is new for each call. */
  readonly request: JsonValue;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
  /** How many calls there are at once; 1 unless given. */
  readonly workers?: number;
  /** How many calls there are, or for how long they go on; one unless given. */
  readonly calls?: number;
  readonly seconds?: number;
  /** How long a worker waits between two calls, in ms. */
  readonly pauseMs?: number;
}

/** What became of a job's calls. */
export interface Outcome {
  readonly calls: number;
  readonly ok: number;
  /** How many failed, by code and reason. */
  readonly failures: Record<string, number>;
  /** What the first of each kind of failure said. */
  readonly messages: Record<string, string>;
  /** The first answers, as JSON. */
  readonly answers: JsonValue[];
  /** When each call that failed began and ended, the first of them. */
  readonly failed: { beginTime: number; endTime: number }[];
  /** The median and the longest but one in a hundred, in ms. */
  readonly p50: number;
  readonly p99: number;
  readonly mostAtOnce: number;
  readonly seconds: number;
}

const KEPT = 50;

function transportOf(job: Job, peersUrl: string, interceptors: Interceptor[]): { transport: Transport; close(): void } {
  const urlOf = (service: string) => peersUrl.replaceAll("{service}", service);
  const service = job.method.split("/")[0] ?? "";
  if (job.protocol === "Connect") {
    return { transport: createConnectTransport({ baseUrl: urlOf(service), httpVersion: "2", interceptors }), close() {} };
  }
  const peers = openPeers({ urlOf, retries: false });
  return { transport: peers.open(service, interceptors), close: () => peers.close() };
}

/** Makes the calls of a job from within a workload, as that workload. */
export async function callAs(keys: Keys, peersUrl: string, job: Job): Promise<Outcome> {
  const tokens = serviceTokens(keys, job.as);
  const identity: Interceptor = (next) => async (request) => {
    request.header.set(SERVICE_TOKEN_HEADER, await tokens());
    return next(request);
  };
  const { transport, close } = transportOf(job, peersUrl, [identity]);
  const [service, name] = job.method.split("/") as [keyof typeof CONTRACTS, string];
  const contract = CONTRACTS[service];
  const method = contract.methods.find(({ localName }) => localName === name) as DescMethodUnary;
  const client = createClient(contract, transport) as unknown as Record<string, (...args: unknown[]) => Promise<never>>;
  const outcome = { calls: 0, ok: 0, failures: {}, messages: {}, answers: [], failed: [] } as Mutable<
    Omit<Outcome, "p50" | "p99" | "mostAtOnce" | "seconds">
  >;
  const took: number[] = [];
  let atOnce = 0;
  let mostAtOnce = 0;
  let left = job.calls ?? (job.seconds === undefined ? 1 : Number.POSITIVE_INFINITY);
  const startTime = Date.now();
  const endTime = startTime + (job.seconds ?? Number.POSITIVE_INFINITY) * 1000;
  const once = async () => {
    const request = fromJson(method.input, JSON.parse(JSON.stringify(job.request).replaceAll("{id}", newId())));
    const beginTime = Date.now();
    const began = performance.now();
    mostAtOnce = Math.max(mostAtOnce, ++atOnce);
    outcome.calls++;
    try {
      const answer = await client[name]?.(request, { timeoutMs: job.timeoutMs, headers: job.headers });
      outcome.ok++;
      if (outcome.answers.length < KEPT) outcome.answers.push(toJson(method.output, answer as never));
    } catch (error) {
      const { code, rawMessage } = ConnectError.from(error);
      const kind = `${Code[code]} ${reasonOf(error) ?? ""}`.trim();
      outcome.failures[kind] = (outcome.failures[kind] ?? 0) + 1;
      outcome.messages[kind] ??= rawMessage;
      if (outcome.failed.length < KEPT) outcome.failed.push({ beginTime, endTime: Date.now() });
    }
    took.push(performance.now() - began);
    atOnce--;
  };
  const worker = async () => {
    while (left-- > 0 && Date.now() < endTime) {
      await once();
      if (job.pauseMs) await new Promise((resolve) => setTimeout(resolve, job.pauseMs));
    }
  };
  await Promise.all(Array.from({ length: job.workers ?? 1 }, worker));
  close();
  took.sort((a, b) => a - b);
  const share = (of: number) => took[Math.min(took.length - 1, Math.floor(took.length * of))] ?? 0;
  return { ...outcome, p50: share(0.5), p99: share(0.99), mostAtOnce, seconds: (Date.now() - startTime) / 1000 };
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
