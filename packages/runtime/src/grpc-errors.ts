// The one place where a MoevieError becomes a gRPC status with details, and a failed call a MoevieError.
import { Metadata, type ServiceError } from "@grpc/grpc-js";
import {
  GRPC_CODE,
  STATUS_DETAILS_KEY,
  asMoevieError,
  decodeStatusDetails,
  encodeStatusDetails,
  type MoevieError,
} from "@moevie/contracts";

/** What a handler's caller receives: code, public text and the details trailer. */
export function toStatus(thrown: unknown): { code: number; details: string; metadata: Metadata } {
  const error = asMoevieError(thrown);
  const metadata = new Metadata();
  metadata.set(STATUS_DETAILS_KEY, encodeStatusDetails(error));
  return { code: GRPC_CODE[error.code], details: error.message, metadata };
}

/** A failed call of `peer` as the caller's MoevieError. */
export function fromServiceError(error: ServiceError, peer: string): MoevieError {
  const [packed] = error.metadata?.get(STATUS_DETAILS_KEY) ?? [];
  return decodeStatusDetails({
    code: error.code,
    text: error.details,
    details: packed instanceof Buffer ? packed : undefined,
    peer,
    cause: error,
  });
}
