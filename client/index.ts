// Souk's client: what every caller needs beside the messages and services themselves, which stand under "@souk/client/<context>/v1".

export { type Money, MoneySchema } from "#gen/marketplace/type/v1/money_pb.ts";
export { isRead, isRepeatable, newRequestId, queryKey } from "./calls.ts";
export {
  type LaterReason,
  metadataOf,
  REASONS,
  type ReasonName,
  reasonOf,
  retryAfterMsOf,
  type Violation,
  violationsOf,
} from "./errors.ts";
export {
  addMoney,
  allocateMoney,
  compareMoney,
  decimalOf,
  formatMoney,
  type MoneyJson,
  type MoneyShape,
  minorDigits,
  money,
  moneyFromJson,
  moneyKey,
  moneyToJson,
  multiplyMoney,
  parseMoney,
  subtractMoney,
} from "./money.ts";
export { createSoukTransport, type SoukTransportOptions, soukInterceptors, type TokenSource } from "./transport.ts";
export { type WatchOrderOptions, watchOrder } from "./watch-order.ts";
