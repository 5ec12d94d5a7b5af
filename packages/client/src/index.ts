// Public entry of @moevie/client: a small typed SDK on the public gRPC API.
export { MoevieError } from "@moevie/contracts";
export type { Operation, Video, VideoEvent, VideoProgress, VideoSpec, VideoState } from "@moevie/contracts";
export { VideoClient, type CallOptions, type VideoClientOptions } from "./video-client.ts";
