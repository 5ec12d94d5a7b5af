// The two public services of the gateway, ready to be served. main.ts serves them; the conformance tests do too.
import { implement, type GrpcService } from "@moevie/runtime";
import type { Gateway } from "./gateway.ts";
import { operationsHandlers } from "./operations.ts";
import { videoHandlers } from "./service.ts";

export type { Gateway } from "./gateway.ts";
export { OpenCalls } from "./open-calls.ts";

export function publicServices(gateway: Gateway): GrpcService[] {
  return [
    implement("moevie.v1.VideoService", videoHandlers(gateway)),
    implement("google.longrunning.Operations", operationsHandlers(gateway)),
  ];
}
