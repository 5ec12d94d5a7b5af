// Public entry of the fabric package: the expert exchange, for the router and the expert-shard only.
export type { DenoiserUnit, ExpertRows, HeldSlot, Holds } from "./body.ts";
export { BufferPool } from "./buffer-pool.ts";
export { connectExchange } from "./client.ts";
export type { ExchangeClient, ExchangeConnectOptions, ExchangePartial, ExchangePath } from "./client.ts";
export { combine, dispatch, weightedPartial } from "./dispatch.ts";
export type { GateChoice, ShardPartial, ShardWork } from "./dispatch.ts";
export { fileMapper } from "./mapped-memory.ts";
export { SEGMENT_FOLDER, parseSegmentFolder } from "./segment-file.ts";
export { WireType } from "./frame.ts";
export type { ExchangeOptions } from "./request.ts";
export { serveExchange } from "./server.ts";
export type { ExchangeServer, ExchangeServerOptions } from "./server.ts";
export type {
  DenoiserRequest,
  ExchangeAnswer,
  ExchangeHandler,
  ExchangeHandlers,
  ExchangeRequest,
} from "./server-stream.ts";
