// Public entry of runtime: what a service process needs around its own work.
export { formatAddress, parseAddress, type Address } from "./address.ts";
export { systemClock, type Clock } from "./clock.ts";
export { DEVICE_SETTINGS, SERVICE_SETTINGS, readConfig, type Settings, type SettingSpec } from "./config.ts";
export type { BidiCall } from "./grpc-call.ts";
export { GrpcPeer, type CallOptions } from "./grpc-client.ts";
export { fromServiceError, toStatus } from "./grpc-errors.ts";
export {
  implement,
  serveGrpc,
  type CallInfo,
  type GrpcServer,
  type GrpcService,
  type Handlers,
  type Loose,
} from "./grpc-server.ts";
export { serveHttp, type HttpEdge, type HttpHandler } from "./http-edge.ts";
export { httpText } from "./http-text.ts";
export { createLogger, type Logger } from "./logger.ts";
export { Metrics } from "./metrics.ts";
export {
  OnnxThread,
  type GraphPlan,
  type OnnxThreadOptions,
  type RunRow,
  type TensorView,
  type TensorViews,
} from "./onnx-thread.ts";
export { pause, turn } from "./pause.ts";
export { expandAddresses, isPeerThere, newPeers, type PeerAddress } from "./peer-addresses.ts";
export { runService, type RunningService, type ServiceContext, type ServiceDescription } from "./service.ts";
export { openTracing, traceIdOf, type SpanHandle, type Tracing } from "./tracing.ts";
export { readReferenceTensor, ReferenceWriter } from "./reference-files.ts";
