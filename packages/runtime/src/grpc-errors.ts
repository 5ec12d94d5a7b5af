// The one place where MoevieError becomes a gRPC status with google.rpc details, and back.
import { Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  ERROR_DOMAIN,
  ERRORS,
  GRPC_CODE,
  MoevieError,
  asMoevieError,
  isReason,
  messageCodec,
  type FieldViolation,
  type Reason,
} from "@moevie/contracts";

const DETAILS_KEY = "grpc-status-details-bin";
const TYPE_PREFIX = "type.googleapis.com/google.rpc.";

/** What a handler's caller receives: code, public text, ErrorInfo, then BadRequest and RetryInfo where they apply. */
export function toStatus(thrown: unknown): { code: number; details: string; metadata: Metadata } {
  const error = asMoevieError(thrown);
  const code = GRPC_CODE[error.code];
  const details: object[] = [{ "@type": `${TYPE_PREFIX}ErrorInfo`, reason: error.reason, domain: ERROR_DOMAIN }];
  if (error.violations.length > 0)
    details.push({ "@type": `${TYPE_PREFIX}BadRequest`, fieldViolations: error.violations });
  if (error.retryAfterMs !== undefined) {
    const seconds = Math.floor(error.retryAfterMs / 1000);
    details.push({
      "@type": `${TYPE_PREFIX}RetryInfo`,
      retryDelay: { seconds, nanos: Math.round((error.retryAfterMs - seconds * 1000) * 1e6) },
    });
  }
  const metadata = new Metadata();
  metadata.set(DETAILS_KEY, messageCodec("google.rpc.Status").encode({ code, message: error.message, details }));
  return { code, details: error.message, metadata };
}

/** A failed call as the caller's MoevieError: the reason from ErrorInfo, or the nearest to the bare code. */
export function fromServiceError(error: ServiceError, peer: string): MoevieError {
  let reason: Reason = reasonOfCode(error.code);
  let violations: FieldViolation[] = [];
  let retryAfterMs: number | undefined;
  const [packed] = error.metadata?.get(DETAILS_KEY) ?? [];
  if (packed instanceof Buffer) {
    const status = messageCodec("google.rpc.Status").decode(packed) as {
      details: ({ "@type": string } & Record<string, unknown>)[];
    };
    for (const detail of status.details) {
      if (detail["@type"] === `${TYPE_PREFIX}ErrorInfo` && isReason(String(detail["reason"])))
        reason = String(detail["reason"]) as Reason;
      if (detail["@type"] === `${TYPE_PREFIX}BadRequest`) violations = detail["fieldViolations"] as FieldViolation[];
      if (detail["@type"] === `${TYPE_PREFIX}RetryInfo`) {
        const delay = detail["retryDelay"] as { seconds: number; nanos: number };
        retryAfterMs = delay.seconds * 1000 + delay.nanos / 1e6;
      }
    }
  }
  return new MoevieError(reason, error.details === "" ? ERRORS[reason].meaning : error.details, {
    violations,
    detail: `${peer}: ${error.message}`,
    cause: error,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

function reasonOfCode(code: number): Reason {
  switch (code) {
    case GRPC_CODE.CANCELLED:
      return "CANCELLED";
    case GRPC_CODE.DEADLINE_EXCEEDED:
      return "DEADLINE";
    case GRPC_CODE.UNAVAILABLE:
      return "PEER_UNAVAILABLE";
    case GRPC_CODE.INVALID_ARGUMENT:
      return "INVALID_FIELD";
    case GRPC_CODE.UNIMPLEMENTED:
      return "UNSUPPORTED";
    case GRPC_CODE.RESOURCE_EXHAUSTED:
      return "OUT_OF_MEMORY";
    default:
      return "INTERNAL";
  }
}
