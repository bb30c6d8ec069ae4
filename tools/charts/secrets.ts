// What the souk chart takes out of a secret that the cluster has: an API server of nothing else is asked by helm.

import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { isDeepStrictEqual } from "node:util";
import { parseAllDocuments } from "yaml";
import type { Finished } from "../checks/run.ts";
import type { ServerOutcome } from "./api-server.ts";

/** Renders with arguments of helm beside the value set's own. */
type Render = (more: readonly string[]) => Promise<Finished>;

interface JwtRule {
  readonly jwks?: string;
  readonly jwksUri?: string;
}

const pem = (namedCurve: string) =>
  generateKeyPairSync("ec", { namedCurve }).privateKey.export({ type: "pkcs8", format: "pem" }).toString();

/** Renders beside a cluster whose secret has this key as accounts.pem; none has a secret without it. */
async function renderBeside(key: string | undefined, namespace: string, render: Render, ...more: string[]): Promise<Finished> {
  const data = key === undefined ? {} : { "accounts.pem": Buffer.from(key).toString("base64") };
  const answers: Readonly<Record<string, unknown>> = {
    "/api/v1": { kind: "APIResourceList", groupVersion: "v1", resources: [{ name: "secrets", namespaced: true, kind: "Secret" }] },
    [`/api/v1/namespaces/${namespace}/secrets/souk-keys`]: { apiVersion: "v1", kind: "Secret", data },
  };
  const server = createServer((request, response) => {
    const answer = answers[request.url?.replace(/\?.*/, "") ?? ""];
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? { kind: "Status", apiVersion: "v1", status: "Failure", reason: "NotFound", code: 404 }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    return await render(["--dry-run=server", "--kube-apiserver", `http://127.0.0.1:${port}`, ...more]);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

/** How the mesh is told to check tokens, each way once. */
function jwtRules({ output }: Finished): JwtRule[] {
  const documents = parseAllDocuments(output);
  const rules = (Array.isArray(documents) ? documents : []).flatMap((document) => {
    const resource = document.toJS() as { kind: string; spec: { jwtRules: JwtRule[] } } | null;
    return resource?.kind === "RequestAuthentication" ? resource.spec.jwtRules : [];
  });
  return [...new Set(rules.map(({ jwks, jwksUri }) => JSON.stringify({ jwks, jwksUri })))].map((each) => JSON.parse(each));
}

/** Whether the mesh gets the built-in issuer's public key out of the secret, and what is said of a secret that has none. */
export async function checkIssuerKey(namespace: string, render: Render): Promise<ServerOutcome[]> {
  const key = pem("P-256");
  const [rule, ...others] = jwtRules(await renderBeside(key, namespace, render));
  const { kty, crv, x, y } = createPublicKey(key).export({ format: "jwk" });
  const wanted = { keys: [{ kty, crv, x, y, alg: "ES256", use: "sig" }] };
  const isPublicKey =
    isDeepStrictEqual(JSON.parse(rule?.jwks ?? "null"), wanted) && rule?.jwksUri === undefined && others.length === 0;
  const outcomes: ServerOutcome[] = [
    {
      what: "the mesh gets the public key of accounts.pem in the secret",
      problem: isPublicKey ? undefined : `it gets ${JSON.stringify([rule, ...others])} instead of ${JSON.stringify(wanted)}`,
    },
  ];
  const given = `mesh.issuer.jwks=${JSON.stringify(rule?.jwks)}`;
  const [first] = jwtRules(await renderBeside("nonsense", namespace, render, "--set-json", given));
  outcomes.push({
    what: "the mesh gets the key in mesh.issuer.jwks rather than the secret's",
    problem: first?.jwks === rule?.jwks ? undefined : `it gets ${JSON.stringify(first)}`,
  });
  const refused = { "no key": undefined, "a key of another curve": pem("P-384"), "what is no key": "nonsense" };
  for (const [what, bad] of Object.entries(refused)) {
    const { code, output } = await renderBeside(bad, namespace, render);
    const said = /accounts\.pem in the secret souk-keys.*is missing or no such key as this makes: openssl genpkey/.test(output);
    outcomes.push({ what: `${what} in the secret is refused`, problem: code !== 0 && said ? undefined : output.slice(-1_000) });
  }
  return outcomes;
}
