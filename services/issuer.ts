// The built-in issuer of accounts' tokens as a process of its own: `node services/issuer.ts [settings]`.

import { calculateJwkThumbprint, exportJWK } from "jose";
import { runProgram } from "#runtime/program.ts";
import type { Door } from "#runtime/service.ts";
import { folder, issuerUrl, optional, shortText } from "#runtime/setting-readers.ts";
import type { SettingSources } from "#runtime/settings.ts";
import { portSetting, readSideSettings, SIDE_SETTINGS, type SideRunning, startSide } from "#runtime/side-program.ts";
import { ACCOUNT_ID, ALGORITHM, type Keys, loadOrCreateAccountKey, signAccountToken } from "#runtime/tokens.ts";
import { accounts } from "./demo-accounts.ts";

const SETTINGS = {
  ...SIDE_SETTINGS,
  port: portSetting(8082),
  keysDir: {
    variable: "SOUK_KEYS_DIR",
    shown: "FOLDER",
    initial: ".souk/keys",
    meaning: "the folder with the key that signs, accounts.pem, which is made where it is missing",
    read: folder,
  },
  issuer: {
    variable: "SOUK_ISSUER",
    shown: "URL",
    initial: "",
    meaning: "what it calls itself; the address it is reached at unless set",
    read: optional(issuerUrl),
  },
  issuerAudience: {
    variable: "SOUK_ISSUER_AUDIENCE",
    shown: "NAME",
    initial: "souk",
    meaning: "whom its tokens are for",
    read: shortText,
  },
} as const;

const USAGE = `usage: node services/issuer.ts [settings]

Signs tokens for anybody, in place of an OpenID provider: name it to the marketplace in SOUK_ISSUER=http://127.0.0.1:8082.
  curl -d account=ada http://127.0.0.1:8082/token
gives one of a demo account (${accounts.map(({ name }) => name).join(", ")}) or of an account by its id, which is an operator's with operator=true.`;

/** How long a token lives, in ms. */
const TOKEN_MS = 3_600_000;

/** Reads flags and variables; gives the help's text when it is asked for. */
export function readIssuerSettings(sources: SettingSources) {
  return readSideSettings(SETTINGS, USAGE, sources);
}

type IssuerSettings = Exclude<ReturnType<typeof readIssuerSettings>, { readonly help: string }>;

/** Reads the key and listens. */
export function startIssuer(settings: IssuerSettings): Promise<SideRunning> {
  const { keysDir, issuer, issuerAudience: audience } = settings;
  return startSide(settings, "issuer", async (baseUrl) => {
    const keys = await loadOrCreateAccountKey(keysDir);
    return { doors: await issuerDoors(keys, () => issuer ?? baseUrl(), audience), close: () => {} };
  });
}

async function issuerDoors(keys: Pick<Keys, "accounts">, issuer: () => string, audience: string): Promise<readonly Door[]> {
  const publicKey = await exportJWK(keys.accounts.publicKey);
  const keyId = await calculateJwkThumbprint(publicKey);
  const below = (path: string) => `${issuer().replace(/\/$/, "")}${path}`;
  return [
    {
      method: "GET",
      path: "/.well-known/openid-configuration",
      handle: async () =>
        Response.json({
          issuer: issuer(),
          jwks_uri: below("/jwks"),
          token_endpoint: below("/token"),
          response_types_supported: ["token"],
          subject_types_supported: ["public"],
          id_token_signing_alg_values_supported: [ALGORITHM],
        }),
    },
    {
      method: "GET",
      path: "/jwks",
      handle: async () => Response.json({ keys: [{ ...publicKey, kid: keyId, alg: ALGORITHM, use: "sig" }] }),
    },
    {
      method: "POST",
      path: "/token",
      async handle(request) {
        const form = new URLSearchParams(await request.text());
        const account = whoIs(form);
        if (account === undefined) {
          const error_description = "There is no such account: give account= a demo account's name, or an account's id.";
          return Response.json({ error: "invalid_request", error_description }, { status: 400 });
        }
        const access_token = await signAccountToken(keys, { ...account, issuer: issuer(), audience, keyId, ttlMs: TOKEN_MS });
        return Response.json(
          { access_token, token_type: "Bearer", expires_in: TOKEN_MS / 1000 },
          { headers: { "cache-control": "no-store" } },
        );
      },
    },
  ];
}

function whoIs(form: URLSearchParams): { accountId: string; operator: boolean } | undefined {
  const account = form.get("account") ?? "";
  const demo = accounts.find(({ name }) => name === account);
  if (demo !== undefined) return { accountId: demo.accountId, operator: demo.operator };
  return ACCOUNT_ID.test(account) ? { accountId: account, operator: form.get("operator") === "true" } : undefined;
}

if (import.meta.main) {
  await runProgram({
    read: () => readIssuerSettings({ argv: process.argv.slice(2), env: process.env }),
    start: (settings) => startIssuer(settings as IssuerSettings),
    ready: async ({ url, log }) => log.info({ url }, "ready"),
  });
}
