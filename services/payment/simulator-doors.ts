import type { Door } from "#runtime/service.ts";
import type { Confirmation, Simulator } from "./simulator.ts";

/** Below which path the simulator's pages stand. */
export const CONFIRMATIONS_PATH = "/simulator/confirmations/";

const PAGE_HEADERS = {
  "content-type": "text/html; charset=utf-8",
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
};

/** The page on which a buyer confirms a simulated payment, and the two answers it sends. Who knows the id may answer. */
export function simulatorDoors(simulator: Simulator): readonly Door[] {
  return [
    {
      method: "GET",
      path: CONFIRMATIONS_PATH,
      async handle(request) {
        const [confirmationId = "", rest] = tailOf(request);
        return pageOf(confirmationId, rest === undefined ? simulator.confirmation(confirmationId) : undefined);
      },
    },
    {
      method: "POST",
      path: CONFIRMATIONS_PATH,
      async handle(request) {
        const [confirmationId = "", answer, rest] = tailOf(request);
        if (rest !== undefined || (answer !== "confirm" && answer !== "decline")) {
          return pageOf(confirmationId, undefined);
        }
        simulator.decide(confirmationId, answer === "confirm");
        return pageOf(confirmationId, simulator.confirmation(confirmationId));
      },
    },
  ];
}

/** How long the simulator in another process may take for a page, in ms. */
const PAGE_TIMEOUT_MS = 5_000;

/** The same pages where the simulator is another process, which people do not reach: each visit is passed on to it. */
export function passedOnDoors(origin: string): readonly Door[] {
  return (["GET", "POST"] as const).map((method) => ({
    method,
    path: CONFIRMATIONS_PATH,
    async handle(request) {
      const path = tailOf(request).slice(0, 3).map(encodeURIComponent).join("/");
      const signal = AbortSignal.timeout(PAGE_TIMEOUT_MS);
      const page = await fetch(`${origin}${CONFIRMATIONS_PATH}${path}`, { method, signal, redirect: "error" });
      return new Response(await page.text(), { status: page.status, headers: PAGE_HEADERS });
    },
  }));
}

function tailOf(request: Request): string[] {
  return new URL(request.url).pathname.slice(CONFIRMATIONS_PATH.length).split("/");
}

const SENTENCES: Readonly<Record<Confirmation["state"], string>> = {
  confirm: "The shop asks you to confirm this payment.",
  approved: "Confirmed. You can go back to the shop.",
  declined: "Declined. No money moves.",
  dropped: "The shop has dropped this payment. No money moves.",
};

function pageOf(confirmationId: string, confirmation: Confirmation | undefined): Response {
  const body =
    confirmation === undefined
      ? "<p>There is no such payment.</p>"
      : `<p>${amountText(confirmation)}</p><p>${SENTENCES[confirmation.state]}</p>${confirmation.state === "confirm" ? buttons(confirmationId) : ""}`;
  const head = `<meta charset="utf-8"><title>Simulated processor</title>`;
  return new Response(
    `<!doctype html><html lang="en"><head>${head}</head><body><h1>Simulated processor</h1>${body}</body></html>`,
    {
      status: confirmation === undefined ? 404 : 200,
      headers: PAGE_HEADERS,
    },
  );
}

/** The id is one the simulator made: it has found the payment under it. */
function buttons(confirmationId: string): string {
  const button = (answer: string, text: string) =>
    `<button formaction="${CONFIRMATIONS_PATH}${confirmationId}/${answer}">${text}</button>`;
  return `<form method="post">${button("confirm", "Confirm")} ${button("decline", "Decline")}</form>`;
}

function amountText({ amountMinor, currencyCode }: Confirmation): string {
  if (currencyCode === "JPY") {
    return `${amountMinor} JPY`;
  }
  return `${amountMinor / 100n}.${(amountMinor % 100n).toString().padStart(2, "0")} ${currencyCode}`;
}
