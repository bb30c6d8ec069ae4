import { putBeside } from "./beside.ts";

const PORT = 8080;
const BOOKS = "/var/lib/souk";

/**
 * Puts a simulated processor into a namespace, as a real one is: its books outlive an upgrade. It is reached at
 * `http://processor.NAMESPACE.svc.cluster.local:8080/v1`.
 */
export async function openProcessor(namespace: string, image: string): Promise<void> {
  const env = {
    SOUK_ENV: "development",
    SOUK_HOST: "0.0.0.0",
    SOUK_PORT: `${PORT}`,
    SOUK_SIMULATOR_FILE: `${BOOKS}/processor.db`,
  };
  await putBeside(namespace, [
    {
      name: "processor",
      image,
      port: { number: PORT, name: "http" },
      args: ["services/processor.ts"],
      env: Object.entries(env).map(([name, value]) => ({ name, value })),
      folders: { data: BOOKS, tmp: "/tmp" },
      readinessProbe: { httpGet: { path: "/readyz", port: "http" } },
      memory: "256Mi",
      user: 1000,
      pod: { enableServiceLinks: false },
    },
  ]);
}
