// The small unary calls a shard answers on the port of its exchange: health, and services whose messages are protobuf. One message each
// way, both small; what belongs to the exchange itself is in server-stream.ts.
import {
  GRPC_CODE,
  STATUS_DETAILS_KEY,
  asMoevieError,
  encodeStatusDetails,
  protoDefinitions,
  type GrpcCodeName,
} from "@moevie/contracts";
import type { CallInfo, GrpcService } from "@moevie/runtime";
import { exchangeError } from "./exchange-error.ts";
import { GRPC_PREFIX_BYTES } from "./frame-reader.ts";
import type { H2Stream, H2StreamSink } from "./h2-stream.ts";
import { HEALTH_CHECK_PATH, RESPONSE_HEADERS, grpcTrailers } from "./link.ts";

/** Of a call's message, with the gRPC prefix. */
const REQUEST_BYTES_MAX = 65_536;

/** Answers a message with a message. */
type UnaryCall = (request: Buffer) => Promise<Uint8Array>;

/** What the proto loader says of a method, as far as it is used here. */
interface Method {
  readonly path: string;
  readonly requestDeserialize: (bytes: Buffer) => object;
  readonly responseSerialize: (message: object) => Buffer;
}

/** The calls by path: health, which says `serving`, and all of `services`, whose methods must be unary. `ending` aborts with the server. */
export function unaryCalls(
  serving: () => boolean,
  services: readonly GrpcService[],
  ending: AbortSignal,
): ReadonlyMap<string, UnaryCall> {
  // HealthCheckResponse {status}: 1 serving, 2 not. The one field is cheaper written than generated.
  const calls = new Map<string, UnaryCall>([
    [HEALTH_CHECK_PATH, () => Promise.resolve(Uint8Array.of(8, serving() ? 1 : 2))],
  ]);
  const info: CallInfo = { signal: ending, draining: ending, deadlineMs: Infinity, traceparent: undefined };
  for (const { name, handlers } of services) {
    for (const [method, found] of Object.entries(protoDefinitions()[name] as object) as [string, Method][]) {
      const handler = handlers[method] as (request: object, call: CallInfo) => Promise<object>;
      calls.set(found.path, async (bytes) =>
        found.responseSerialize(await handler(found.requestDeserialize(bytes), info)),
      );
    }
  }
  return calls;
}

/** Collects the request's one message and answers it with `call`; without one nobody knows the path. */
export function unarySink(stream: H2Stream, call: UnaryCall | undefined): H2StreamSink {
  const request = Buffer.alloc(REQUEST_BYTES_MAX);
  let bytesIn = 0;
  const refuse = (thrown: unknown): void => {
    const error = asMoevieError(thrown);
    const details = encodeStatusDetails(error).toString("base64");
    endWith(stream, error.code, error.message, [[STATUS_DETAILS_KEY, details]]);
  };
  return {
    target: () => {
      if (bytesIn === REQUEST_BYTES_MAX)
        throw exchangeError("INVALID_FIELD", `the request has more than ${REQUEST_BYTES_MAX} bytes`);
      return request.subarray(bytesIn);
    },
    advance: (bytes) => {
      bytesIn += bytes;
    },
    refuse: (thrown) => {
      stream.respond(RESPONSE_HEADERS);
      refuse(thrown);
    },
    headers: () => undefined,
    end: () => {
      stream.respond(RESPONSE_HEADERS);
      answer(request.subarray(0, bytesIn), call).then((message) => {
        stream.write([message]);
        endWith(stream, "OK", "");
      }, refuse);
    },
    close: () => undefined,
  };
}

async function answer(request: Buffer, call: UnaryCall | undefined): Promise<Buffer> {
  if (call === undefined) throw exchangeError("UNSUPPORTED", "unknown method");
  if (request.length < GRPC_PREFIX_BYTES || request.readUInt32BE(1) !== request.length - GRPC_PREFIX_BYTES)
    throw exchangeError("INVALID_FIELD", "the call has not one whole message");
  if (request[0] !== 0) throw exchangeError("UNSUPPORTED", "compressed messages are not accepted");
  const body = await call(request.subarray(GRPC_PREFIX_BYTES));
  const message = Buffer.alloc(GRPC_PREFIX_BYTES + body.length);
  message.writeUInt32BE(body.length, 1);
  message.set(body, GRPC_PREFIX_BYTES);
  return message;
}

function endWith(stream: H2Stream, code: GrpcCodeName, text: string, more: readonly [string, string][] = []): void {
  stream.end(new Map([...grpcTrailers(GRPC_CODE[code], text), ...more]));
}
