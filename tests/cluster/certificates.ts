import assert from "node:assert/strict";
import { tool, until } from "./cluster.ts";
import type { Lab } from "./lab.ts";
import { READERS } from "./outliers.ts";
import { reserved, succeeded } from "./retries.ts";

/** The serial number of the certificate that a workload's proxy shows. */
export async function serialOf(lab: Lab, workload: string): Promise<string> {
  const [pod = ""] = await lab.pods(workload);
  const request = ["pilot-agent", "request", "GET", "certs"];
  const output = await tool("kubectl", "-n", lab.name, "exec", pod, "-c", "istio-proxy", "--", ...request);
  const { certificates } = JSON.parse(output.slice(output.indexOf("{"), output.lastIndexOf("}") + 1)) as Certificates;
  const serial = certificates.flatMap(({ cert_chain }) => cert_chain)[0]?.serial_number;
  assert.ok(serial !== undefined, "the proxy has a certificate");
  return serial;
}

interface Certificates {
  readonly certificates: readonly { readonly cert_chain: readonly { readonly serial_number: string }[] }[];
}

/** Reads over gRPC and Connect for as long as some work takes; fails unless every call succeeded. Answers how many there were. */
export async function callsGoOn(lab: Lab, work: () => Promise<void>): Promise<number> {
  const reservationId = await reserved(lab);
  let over = false;
  let calls = 0;
  const reading = READERS.map(async (reader) => {
    while (!over) {
      const read = { ...reader, method: "inventory/getReservation", request: { reservationId }, timeoutMs: 10_000 } as const;
      const outcome = await lab.call({ ...read, workers: 4, seconds: 2, pauseMs: 20 });
      calls += outcome.calls;
      succeeded(outcome);
    }
  });
  const all = Promise.all(reading);
  // It is awaited below, also when the work fails.
  all.catch(() => {});
  try {
    await work();
  } finally {
    over = true;
  }
  await all;
  return calls;
}

/** Waits until every workload that calls or is called has another certificate. */
export async function certificatesRotate(lab: Lab): Promise<void> {
  const workloads = ["ops", "order", "inventory"];
  const before = await Promise.all(workloads.map((workload) => serialOf(lab, workload)));
  const changed = async () => {
    const now = await Promise.all(workloads.map((workload) => serialOf(lab, workload)));
    return now.every((serial, index) => serial !== before[index]);
  };
  // A certificate of two minutes is replaced after half of them.
  await until("the certificates rotate", changed, 90);
}
