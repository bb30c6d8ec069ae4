import { defineEntity, p } from "@mikro-orm/core";
import type { Selectable } from "kysely";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import type { State } from "./states.ts";

// The tables of the order service. Times are milliseconds since the epoch, money is in minor units.

/** What became of a step. */
export type StepState = "started" | "done" | "failed" | "undone";
/** The commands whose callers wait for a saga. */
export type Command = "place" | "continue" | "cancel" | "confirm";
/** Through whose eyes an order is shown. */
export type Viewer = "buyer" | "seller" | "operator";

/** One purchase. Every change of its state counts `version` up; a runner that holds the lease alone drives its saga. */
export const OrderEntity = defineEntity({
  name: "Order",
  tableName: "orders",
  properties: {
    /** A UUID of version 7: sorts by the time of placing. */
    orderId: p.string().length(36).primary(),
    state: p.string().length(24).$type<State>(),
    version: p.bigint("number"),
    buyerId: p.string().length(36),
    sellerId: p.string().length(36),
    currencyCode: p.string().length(3),
    totalMinor: p.bigint("bigint"),
    /** The longest handling time of its lines, in days. */
    handlingDays: p.integer(),
    /** The payment that pays it; also the key under which payment knows it before it answers. */
    paymentId: p.string().length(36).unique(),
    paymentMethodToken: p.string().length(129),
    /** A `marketplace.order.v1.ShippingAddress`, serialized. */
    shipTo: p.blob(),
    /** When the units that are set aside go back by themselves. */
    reservationExpireTime: p.bigint("number"),
    confirmationUrl: p.string().length(500),
    cancelReason: p.string().length(63),
    carrier: p.string().length(60),
    trackingNumber: p.string().length(60),
    ratingStars: p.integer().nullable(),
    ratingComment: p.text(),
    createTime: p.bigint("number"),
    updateTime: p.bigint("number"),
    dueTime: p.bigint("number").nullable(),
    paidTime: p.bigint("number").nullable(),
    shipTime: p.bigint("number").nullable(),
    endTime: p.bigint("number").nullable(),
    /** Who drives the saga now; null when nobody does. */
    leaseOwner: p.string().length(36).nullable(),
    leaseExpireTime: p.bigint("number").nullable(),
    /** The steps of its saga as `steps.ts` writes them; null where they are rows of `saga_step`. */
    saga: p.text().nullable(),
    /** The number of its last event; null where `sequence` has it. */
    eventSequence: p.bigint("number").nullable(),
    /** When the job `order.due` is to look after it; null when nobody is, or when that job is planned. */
    watchTime: p.bigint("number").nullable(),
    /** The command that placed it while its caller waits; null when nobody does, or when `order_command` has it because others wait, too. */
    waitingKey: p.string().length(191).nullable(),
  },
});

/** What is bought of one listing, as it was when the order was placed. */
export const OrderLineEntity = defineEntity({
  name: "OrderLine",
  tableName: "order_line",
  primaryKeys: ["orderId", "position"],
  uniques: [{ properties: ["orderId", "listingId"] }],
  properties: {
    orderId: p.string().length(36).primary(),
    /** From 0, in the order of the request. */
    position: p.integer().primary(),
    listingId: p.string().length(36),
    title: p.string().length(300),
    units: p.integer(),
    unitPriceMinor: p.bigint("bigint"),
    /** When the listing was published: chooses the fee schedule. */
    listingTime: p.bigint("number"),
  },
});

/** One remote command of a saga that an older program began; the others stand in the order's row. */
export const SagaStepEntity = defineEntity({
  name: "SagaStep",
  tableName: "saga_step",
  primaryKeys: ["orderId", "step"],
  properties: {
    orderId: p.string().length(36).primary(),
    step: p.string().length(32).primary(),
    /** `started`, `done`, `failed` (certainly without effect) or `undone`. */
    state: p.string().length(16).$type<StepState>(),
    /** Tries begun, the first included. */
    attempts: p.integer(),
    /** The answer's message, serialized, once it is done. */
    result: p.blob().nullable(),
    /** Why the last try, or the last try to undo it, failed; empty when none did. */
    reason: p.string().length(64),
    startTime: p.bigint("number"),
    updateTime: p.bigint("number"),
  },
});

/** A command whose caller waits for the outcome of the order's saga; who placed it and waits alone stands in the order's row. */
export const OrderCommandEntity = defineEntity({
  name: "OrderCommand",
  tableName: "order_command",
  properties: {
    requestKey: p.string().length(191).primary(),
    orderId: p.string().length(36),
    /** `place`, `continue`, `cancel` or `confirm`. */
    command: p.string().length(16).$type<Command>(),
    /** Through whose eyes the answer is written: `buyer`, `seller` or `operator`. */
    viewer: p.string().length(16).$type<Viewer>(),
  },
});

/** All tables of the service, for `openDatabase`. */
export const entities = [OrderEntity, OrderLineEntity, SagaStepEntity, OrderCommandEntity] as const;

/** The tables as Kysely sees them. */
export type Tables = TablesOf<typeof entities>;
/** An order's row. */
export type OrderRow = Selectable<Tables["orders"]>;
/** The row of one of its lines. */
export type LineRow = Selectable<Tables["order_line"]>;
/** The service's database. */
export type OrderDatabase = Database<Tables>;
/** A transaction on it. */
export type OrderTransaction = Transaction<Tables>;
