// Public entry of the fabric package: the expert exchange, for the router and the expert-shard only.
export type { ExpertRows, HeldSlot, Holds } from "./body.ts";
export { BufferPool } from "./buffer-pool.ts";
export { connectExchange } from "./client.ts";
export type { ExchangeClient, ExchangeConnectOptions, ExchangeOptions, ExchangePartial } from "./client.ts";
export { combine, dispatch, weightedPartial } from "./dispatch.ts";
export type { GateChoice, ShardPartial, ShardWork } from "./dispatch.ts";
export { WireType } from "./frame.ts";
export { serveExchange } from "./server.ts";
export type { ExchangeServer, ExchangeServerOptions } from "./server.ts";
export type { ExchangeAnswer, ExchangeHandler, ExchangeRequest } from "./server-stream.ts";
