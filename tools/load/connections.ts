import type { Transport } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { openGrpcClient } from "#runtime/client/transport.ts";
import { policyOf } from "#runtime/policy.ts";
import type { LoadPlan } from "./plan.ts";
import type { Attempts } from "./recorder.ts";

/** Connections to a marketplace that take turns. */
export interface Connections {
  next(): Transport;
  /** The attempts sent so far, and how many of them were sent again; undefined where each call is sent once. */
  attempts(): Omit<Attempts, "calls"> | undefined;
  close(): void;
}

/** Opens them; each is made when it is first used. */
export function openConnections(plan: Opening): Connections {
  const { transports, attempts, close } = plan.protocol === "grpc" ? overGrpc(plan) : overConnect(plan);
  let turn = 0;
  return { next: () => transports[turn++ % transports.length] as Transport, attempts, close };
}

type Opening = Pick<LoadPlan, "url" | "authority" | "protocol" | "connections" | "retries">;

function overGrpc({ url, authority, connections, retries }: Opening) {
  const clients = Array.from({ length: connections }, () =>
    openGrpcClient({
      baseUrl: url,
      authority,
      outermost: true,
      boundsOf: (method) => {
        const { timeoutMs, maxAttempts } = policyOf(method);
        return { timeoutMs, maxAttempts: retries ? maxAttempts : 1 };
      },
    }),
  );
  return {
    transports: clients.map((client) => client.transport()),
    attempts: () => ({
      sent: clients.reduce((sum, { attempts }) => sum + attempts.sent, 0),
      again: clients.reduce((sum, { attempts }) => sum + attempts.retried + attempts.resent, 0),
    }),
    close() {
      for (const client of clients) client.close();
    },
  };
}

function overConnect({ url, protocol, connections }: Opening) {
  const sessions = Array.from({ length: connections }, () => new Http2SessionManager(url));
  const useBinaryFormat = protocol === "connect";
  return {
    transports: sessions.map((sessionManager) =>
      createConnectTransport({ baseUrl: url, httpVersion: "2", useBinaryFormat, sessionManager }),
    ),
    attempts: () => undefined,
    close() {
      for (const session of sessions) session.abort();
    },
  };
}
