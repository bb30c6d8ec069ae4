import { createHash } from "node:crypto";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { MaintenanceService, OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { accountOf, type Call, callOf } from "#runtime/call.ts";
import { type Clients, forCall } from "#runtime/clients.ts";
import { fail } from "#runtime/errors.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { checkBooks } from "./books.ts";
import { SERVICE_UNKNOWN } from "./errors.ts";

/** What ops is made of. */
export interface OpsDependencies {
  readonly clients: Clients;
  /** The services that have tables, and therefore dead letters and jobs. */
  readonly services: readonly string[];
}

/** The operators' door: it asks the services and owns no tables. */
export function ops({ clients, services }: OpsDependencies): ServiceModule {
  const keepers = {
    payment: clients.of(PaymentService),
    order: clients.of(OrderService),
    inventory: clients.of(InventoryService),
  };
  const maintenanceOf = (service: string) =>
    services.includes(service)
      ? clients.at(service, MaintenanceService)
      : fail(SERVICE_UNKNOWN, { metadata: { service, services: services.join(",") } });
  /** Ops asks for itself: an operator's account is nobody's customer. */
  const asItself = (call: Call) => forCall(call, { asItself: true });
  /** The command that ops sends on is the operator's own: a repeat of it is a repeat there. */
  const passedOn = (call: Call, requestId: string) =>
    createHash("sha256")
      .update(`${accountOf(call)}/${requestId}`)
      .digest("hex");

  return {
    name: "ops",
    consumers: [],
    jobs: [],
    recurring: [],
    routes(router) {
      router.service(OpsService, {
        getTrialBalance: (_, context) => keepers.payment.getTrialBalance({}, asItself(callOf(context))),

        async checkBooks(_, context) {
          const checks = await checkBooks(keepers, () => asItself(callOf(context)));
          return { checks, balanced: checks.every((check) => check.findings.length === 0) };
        },

        listOrderTransfers: ({ orderId }, context) => keepers.payment.listTransfers({ orderId }, asItself(callOf(context))),

        listDeadLetters: ({ service, pageSize, pageToken }, context) =>
          maintenanceOf(service).listOwnDeadLetters({ pageSize, pageToken }, asItself(callOf(context))),

        retryDeadLetter: ({ service, deadLetterId, requestId }, context) => {
          const call = callOf(context);
          return maintenanceOf(service).retryOwnDeadLetter({ deadLetterId, requestId: passedOn(call, requestId) }, asItself(call));
        },

        discardDeadLetter: ({ service, deadLetterId, note, requestId }, context) => {
          const call = callOf(context);
          const command = { deadLetterId, note, operatorId: accountOf(call), requestId: passedOn(call, requestId) };
          return maintenanceOf(service).discardOwnDeadLetter(command, asItself(call));
        },

        listJobs: ({ service, pageSize, pageToken }, context) =>
          maintenanceOf(service).listOwnJobs({ pageSize, pageToken }, asItself(callOf(context))),
      });
    },
  };
}
