// A MoevieError as google.rpc.Status bytes and back: what travels in the grpc-status-details-bin trailer. Pure.
import { ERROR_DOMAIN, ERRORS, GRPC_CODE, MoevieError, isReason } from "./errors.ts";
import type { FieldViolation, MemoryShortage, Reason } from "./errors.ts";
import { messageCodec } from "./protos.ts";

/** Key of the trailer that carries the details. */
export const STATUS_DETAILS_KEY = "grpc-status-details-bin";
const TYPE_PREFIX = "type.googleapis.com/google.rpc.";

/** Keys of ErrorInfo's metadata, whose values are decimal numbers. */
const [NEEDED_BYTES, FREE_BYTES] = ["neededBytes", "freeBytes"] as const;

/** google.rpc.Status with ErrorInfo, then BadRequest and RetryInfo where they apply. */
export function encodeStatusDetails(error: MoevieError): Buffer {
  const { memory, reason } = error;
  const metadata =
    memory === undefined ? {} : { [NEEDED_BYTES]: String(memory.neededBytes), [FREE_BYTES]: String(memory.freeBytes) };
  const details: object[] = [{ "@type": `${TYPE_PREFIX}ErrorInfo`, reason, domain: ERROR_DOMAIN, metadata }];
  if (error.violations.length > 0)
    details.push({ "@type": `${TYPE_PREFIX}BadRequest`, fieldViolations: error.violations });
  if (error.retryAfterMs !== undefined) {
    const seconds = Math.floor(error.retryAfterMs / 1000);
    const nanos = Math.round((error.retryAfterMs - seconds * 1000) * 1e6);
    details.push({ "@type": `${TYPE_PREFIX}RetryInfo`, retryDelay: { seconds, nanos } });
  }
  return messageCodec("google.rpc.Status").encode({ code: GRPC_CODE[error.code], message: error.message, details });
}

/** What a failed call carried: status code, text and the details trailer if any; `peer` is for the log. */
export interface FailedCall {
  readonly code: number;
  readonly text: string;
  readonly details: Uint8Array | undefined;
  readonly peer: string;
  readonly cause: unknown;
}

/** What grpc-js says, as code 13, of a stream that ended without a status: its server died or was killed in mid-answer. */
const CUT_OFF = /^Received RST_STREAM .*without gRPC status/;

/** A failed call as MoevieError: the reason from ErrorInfo, or the nearest to the bare code. */
export function decodeStatusDetails(call: FailedCall): MoevieError {
  const isCutOff = call.code === GRPC_CODE.INTERNAL && CUT_OFF.test(call.text);
  let reason: Reason = isCutOff ? "PEER_UNAVAILABLE" : (REASON_OF_CODE[call.code] ?? "INTERNAL");
  let violations: FieldViolation[] = [];
  let retryAfterMs: number | undefined;
  let memory: MemoryShortage | undefined;
  for (const detail of detailsOf(call.details)) {
    const told = String(detail["reason"]);
    if (detail["@type"] === `${TYPE_PREFIX}ErrorInfo`) {
      if (isReason(told)) reason = told;
      memory = memoryOf(detail["metadata"]);
    }
    if (detail["@type"] === `${TYPE_PREFIX}BadRequest`) violations = detail["fieldViolations"] as FieldViolation[];
    if (detail["@type"] === `${TYPE_PREFIX}RetryInfo`) {
      const delay = detail["retryDelay"] as { seconds: number; nanos: number } | null;
      if (delay !== null) retryAfterMs = delay.seconds * 1000 + delay.nanos / 1e6;
    }
  }
  return new MoevieError(reason, call.text === "" ? ERRORS[reason].meaning : call.text, {
    violations,
    detail: `${call.peer}: ${call.text}`,
    cause: call.cause,
    memory,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

/** The two numbers of ErrorInfo's metadata, where both are there. */
function memoryOf(metadata: unknown): MemoryShortage | undefined {
  const told = (metadata ?? {}) as Readonly<Record<string, string>>;
  const [neededBytes, freeBytes] = [Number(told[NEEDED_BYTES]), Number(told[FREE_BYTES])];
  return neededBytes >= 0 && freeBytes >= 0 ? { neededBytes, freeBytes } : undefined;
}

type Detail = { "@type": string } & Record<string, unknown>;

/** The details of google.rpc.Status bytes; none where somebody else's bytes are not one. */
function detailsOf(bytes: Uint8Array | undefined): readonly Detail[] {
  if (bytes === undefined) return [];
  try {
    return (messageCodec("google.rpc.Status").decode(bytes) as { details: Detail[] }).details;
  } catch {
    return [];
  }
}

const REASON_OF_CODE: Readonly<Record<number, Reason>> = {
  [GRPC_CODE.CANCELLED]: "CANCELLED",
  [GRPC_CODE.DEADLINE_EXCEEDED]: "DEADLINE",
  [GRPC_CODE.UNAVAILABLE]: "PEER_UNAVAILABLE",
  [GRPC_CODE.INVALID_ARGUMENT]: "INVALID_FIELD",
  [GRPC_CODE.UNIMPLEMENTED]: "UNSUPPORTED",
  [GRPC_CODE.RESOURCE_EXHAUSTED]: "OUT_OF_MEMORY",
};
