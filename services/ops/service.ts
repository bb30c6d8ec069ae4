import { createHash } from "node:crypto";
import type { CallOptions, HandlerContext } from "@connectrpc/connect";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import {
  type ListDeadLettersRequest,
  type ListJobsRequest,
  MaintenanceService,
  OpsService,
} from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { accountOf, type Call, callOf } from "#runtime/call.ts";
import { type Clients, forCall } from "#runtime/clients.ts";
import { fail } from "#runtime/errors.ts";
import type { PageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { checkBooks } from "./books.ts";
import { SERVICE_UNKNOWN } from "./errors.ts";

type PagedRequest = ListDeadLettersRequest | ListJobsRequest;

/** What ops is made of. */
export interface OpsDependencies {
  readonly clients: Clients;
  readonly pages: PageTokens;
  /** The services that have tables, and therefore dead letters and jobs. */
  readonly services: readonly string[];
}

/** The operators' door: it asks the services and owns no tables. */
export function ops({ clients, pages, services }: OpsDependencies): ServiceModule {
  const keepers = {
    payment: clients.of(PaymentService),
    order: clients.of(OrderService),
    inventory: clients.of(InventoryService),
  };
  const maintenanceOf = (service: string) =>
    services.includes(service)
      ? clients.at(service, MaintenanceService)
      : fail(SERVICE_UNKNOWN, { metadata: { service, services: services.join(",") } });
  const { inner, outer } = relayedPages(pages);

  return {
    name: "ops",
    consumers: [],
    jobs: [],
    recurring: [],
    routes(router) {
      router.service(OpsService, {
        async getTrialBalance(_, context) {
          const { rows } = await keepers.payment.getTrialBalance({}, asItself(callOf(context)));
          return { rows };
        },

        async checkBooks(_, context) {
          const checks = await checkBooks(keepers, () => asItself(callOf(context)));
          return { checks, balanced: checks.every((check) => check.findings.length === 0) };
        },

        async listOrderTransfers({ orderId }, context) {
          const { transfers } = await keepers.payment.listTransfers({ orderId }, asItself(callOf(context)));
          return { transfers };
        },

        async listDeadLetters(request, context) {
          const own = maintenanceOf(request.service);
          const page = await own.listOwnDeadLetters(inner(request, context), asItself(callOf(context)));
          return { deadLetters: page.deadLetters, nextPageToken: outer(page.nextPageToken, request, context) };
        },

        async retryDeadLetter({ service, deadLetterId, requestId }, context) {
          const call = callOf(context);
          const command = { deadLetterId, requestId: passedOn(call, requestId) };
          // Names the operator: who decided is kept.
          await maintenanceOf(service).retryOwnDeadLetter(command, forCall(call));
          return {};
        },

        async discardDeadLetter({ service, deadLetterId, note, requestId }, context) {
          const call = callOf(context);
          const command = { deadLetterId, note, operatorId: accountOf(call), requestId: passedOn(call, requestId) };
          await maintenanceOf(service).discardOwnDeadLetter(command, asItself(call));
          return {};
        },

        async listJobs(request, context) {
          const own = maintenanceOf(request.service);
          const page = await own.listOwnJobs(inner(request, context), asItself(callOf(context)));
          return { jobs: page.jobs, nextPageToken: outer(page.nextPageToken, request, context) };
        },
      });
    },
  };
}

/** Ops asks for itself: an operator's account is nobody's customer. */
function asItself(call: Call): CallOptions {
  return forCall(call, { asItself: true });
}

/** The key of a command that ops sends on: the operator's own, so that a repeat of it is a repeat there. */
function passedOn(call: Call, requestId: string): string {
  return createHash("sha256")
    .update(`${accountOf(call)}/${requestId}`)
    .digest("hex");
}

/** Pages that another service gives out: its token travels inside ours, which is good for that service only. */
function relayedPages(pages: PageTokens) {
  return {
    /** The page asked for, as the service itself knows it. */
    inner: (request: PagedRequest, { method }: HandlerContext) => ({
      pageSize: request.pageSize,
      pageToken: String(pages.decode(method, request)?.[0] ?? ""),
    }),
    /** The token for the page after. */
    outer: (token: string, request: PagedRequest, { method }: HandlerContext) =>
      token === "" ? "" : pages.encode(method, request, [token]),
  };
}
