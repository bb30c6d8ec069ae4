// Who a tool acts as: a demo account by name, any account by id, or a token given in the environment.

import { existsSync } from "node:fs";
import path from "node:path";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { metadataOf, reasonOf } from "#runtime/errors.ts";
import { ACCOUNT_ID, loadOrCreateKeys, signAccountToken } from "#runtime/tokens.ts";
import { root } from "./checks/run.ts";
import { accounts } from "./seed/listings.ts";

/** Where a marketplace listens unless told otherwise. */
export const DEFAULT_URL = "http://localhost:8080";

/** A mistake of the person who runs a tool: one sentence, no stack. */
export class UsageError extends Error {}

/** The folder of the embedded marketplace's data: `SOUK_DATA_DIR`, or `.souk` beside package.json. */
export function dataDir(): string {
  return path.resolve(process.env.SOUK_DATA_DIR || path.join(root, ".souk"));
}

/**
 * Signs a token as the embedded marketplace would, with its own key.
 *
 * @throws UsageError when there is no such account, or no marketplace has ever been started on the data folder.
 */
export async function tokenFor(name: string, ttlMs?: number): Promise<string> {
  const account = accounts.find((each) => each.name === name);
  const accountId = account?.accountId ?? name;
  if (!ACCOUNT_ID.test(accountId)) {
    const names = accounts.map((each) => each.name).join(", ");
    throw new UsageError(`There is no demo account "${name}". There are ${names}; or give an account's id.`);
  }
  const keys = process.env.SOUK_KEYS_DIR ? path.resolve(process.env.SOUK_KEYS_DIR) : path.join(dataDir(), "keys");
  if (!existsSync(keys)) {
    throw new UsageError(
      `There are no keys in ${keys}: start the marketplace once (npm start), or name its folder in SOUK_DATA_DIR or SOUK_KEYS_DIR.`,
    );
  }
  return signAccountToken(await loadOrCreateKeys(keys), {
    accountId,
    operator: account?.operator ?? false,
    ...(ttlMs !== undefined && { ttlMs }),
  });
}

/** A transport to a running marketplace that sends a token with every call; the token is asked for again when it grows old. */
export function connectAs(url: string, token: () => Promise<string>): Transport {
  const renewMs = 30 * 60_000;
  let current: Promise<string> | undefined;
  let signedTime = 0;
  return createConnectTransport({
    baseUrl: url,
    httpVersion: "2",
    useBinaryFormat: true,
    interceptors: [
      (next) => async (request) => {
        if (current === undefined || Date.now() - signedTime > renewMs) {
          current = token();
          signedTime = Date.now();
        }
        request.header.set("authorization", `Bearer ${await current}`);
        return next(request);
      },
    ],
  });
}

/** Reads an address given by hand. */
export function urlOf(text: string): string {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new UsageError(`"${text}" is not an address such as ${DEFAULT_URL}.`);
  }
  return url.href.replace(/\/$/, "");
}

/**
 * Runs a tool: its mistakes of use and the server's refusals become sentences, everything else keeps its stack. Sets the exit code.
 *
 * @param url where it calls, named when nobody answers there; a function where that is known only once its options are read
 */
export async function runTool(url: string | (() => string), tool: () => Promise<void>): Promise<void> {
  try {
    await tool();
  } catch (error) {
    process.exitCode = 1;
    // A mistake found while a call is made comes wrapped by the client.
    const mistake = error instanceof ConnectError ? error.cause : error;
    if (mistake instanceof UsageError) console.error(mistake.message);
    else if (error instanceof ConnectError && error.code === Code.Unavailable && reasonOf(error) === "UNAVAILABLE") {
      console.error(
        `No marketplace answers at ${typeof url === "string" ? url : url()}. Start one with npm start, or name another with --url. (${error.rawMessage})`,
      );
    } else if (error instanceof ConnectError) {
      console.error(`${reasonOf(error) ?? Code[error.code]}: ${error.rawMessage} ${JSON.stringify(metadataOf(error))}`);
    } else console.error(error);
  }
}
