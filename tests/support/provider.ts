import { once } from "node:events";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { testAuthority } from "./certificates.ts";

/** An OpenID provider of the test's process, over TLS as production wants it. */
export interface TestProvider {
  /** What it calls itself, and where it is. */
  readonly url: string;
  /** The certificate of the CA that its clients must trust, in PEM. */
  readonly authority: string;
  /** Signs an access token, as it would for who has signed in. */
  token(subject: string, roles?: readonly string[]): Promise<string>;
  close(): Promise<void>;
}

/** Starts one on a free port, whose tokens are for an audience. */
export async function startProvider(audience: string): Promise<TestProvider> {
  const { privateKey, publicKey } = await generateKeyPair("RS256");
  const keys = { keys: [{ ...(await exportJWK(publicKey)), kid: "first", alg: "RS256", use: "sig" }] };
  const { certificate, key, authority } = testAuthority("Provider CA").issue(["127.0.0.1"]);
  const server = createServer({ cert: certificate, key }, (request, response) => {
    const documents: Readonly<Record<string, unknown>> = {
      "/.well-known/openid-configuration": { issuer: url, jwks_uri: `${url}/keys` },
      "/keys": keys,
    };
    const answer = documents[request.url ?? ""];
    response.writeHead(answer === undefined ? 404 : 200, { "content-type": "application/json" });
    response.end(JSON.stringify(answer ?? {}));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    authority,
    token: (subject, roles = []) =>
      new SignJWT({ roles })
        .setProtectedHeader({ alg: "RS256", typ: "at+jwt", kid: "first" })
        .setIssuer(url)
        .setAudience(audience)
        .setSubject(subject)
        .setIssuedAt()
        .setExpirationTime("10m")
        .sign(privateKey),
    async close() {
      server.closeAllConnections();
      await once(server.close(), "close");
    },
  };
}
