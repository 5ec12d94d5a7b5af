// Public entry of contracts: names, limits, errors and message types that parts share. No behaviour.
export * from "./environment.ts";
export * from "./errors.ts";
export * from "./fields.ts";
export * from "./limits.ts";
export * from "./metrics.ts";
export * from "./protos.ts";
export * from "./status-details.ts";
export type * from "./gen/messages.ts";
