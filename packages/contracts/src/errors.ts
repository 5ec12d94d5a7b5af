// The error catalogue: every reason a caller can see, its canonical code and whether a retry is safe.
// Public text and operator detail are kept apart here; nothing in this file logs or maps transports.

/** Canonical gRPC status codes by name (grpc/doc/statuscodes.md). */
export const GRPC_CODE = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type GrpcCodeName = keyof typeof GRPC_CODE;

interface CatalogueEntry {
  readonly code: GrpcCodeName;
  /** May the same call be sent again, elsewhere or later? */
  readonly retry: boolean;
  readonly meaning: string;
}

/** Every reason, as ErrorInfo.reason carries it. docs/ERRORS.md is generated from this table. */
export const ERRORS = {
  INVALID_FIELD: {
    code: "INVALID_ARGUMENT",
    retry: false,
    meaning: "One or more fields are wrong; the violations name field, value and what is allowed.",
  },
  VIDEO_NOT_FOUND: { code: "NOT_FOUND", retry: false, meaning: "No video has this name, or it was deleted." },
  OPERATION_NOT_FOUND: { code: "NOT_FOUND", retry: false, meaning: "No operation has this name." },
  REQUEST_ID_REUSED: {
    code: "ALREADY_EXISTS",
    retry: false,
    meaning: "This request_id was used before with another body.",
  },
  BUNDLE_MISMATCH: {
    code: "FAILED_PRECONDITION",
    retry: false,
    meaning: "The caller and the service serve different bundles.",
  },
  STALE_PLACEMENT: {
    code: "FAILED_PRECONDITION",
    retry: true,
    meaning: "The call names another placement than the shard has, and something the shard does not hold or do by it.",
  },
  VIDEO_NOT_READY: {
    code: "FAILED_PRECONDITION",
    retry: false,
    meaning: "The video has no finished file: it is queued, running, failed or cancelled.",
  },
  VIDEO_NOT_DEAD: {
    code: "FAILED_PRECONDITION",
    retry: false,
    meaning: "Only a video that failed for no fault of its caller can be queued again.",
  },
  QUEUE_FULL: {
    code: "RESOURCE_EXHAUSTED",
    retry: true,
    meaning: "The queue of jobs is at its limit; retry after the time given.",
  },
  TENANT_QUEUE_FULL: {
    code: "RESOURCE_EXHAUSTED",
    retry: true,
    meaning:
      "The tenant has as many jobs waiting as it may have; tenant and limit are named; retry after the time given.",
  },
  TOO_MANY_OPEN_CALLS: {
    code: "RESOURCE_EXHAUSTED",
    retry: true,
    meaning: "Too many watches, waits or downloads are open at this gateway; call again after the time given.",
  },
  OUT_OF_MEMORY: {
    code: "RESOURCE_EXHAUSTED",
    retry: false,
    meaning: "The call needs more memory than the device has free; the bytes are named.",
  },
  DISK_FULL: {
    code: "RESOURCE_EXHAUSTED",
    retry: false,
    meaning: "There is no room on the disk for records, clips or checkpoints; the job that met it fails.",
  },
  CREDITS_EXHAUSTED: {
    code: "RESOURCE_EXHAUSTED",
    retry: true,
    meaning: "The shard has no room for more rows in flight.",
  },
  PEER_UNAVAILABLE: { code: "UNAVAILABLE", retry: true, meaning: "A service this call depends on does not answer." },
  DRAINING: { code: "UNAVAILABLE", retry: true, meaning: "The service is going away and takes no new work." },
  EXPERT_MISSING: { code: "UNAVAILABLE", retry: true, meaning: "No connected shard holds an expert the step needs." },
  DEADLINE: {
    code: "DEADLINE_EXCEEDED",
    retry: true,
    meaning: "The call, or the job that was given a deadline, did not finish in its time.",
  },
  CANCELLED: { code: "CANCELLED", retry: false, meaning: "The caller or a user cancelled the work." },
  LEASE_LOST: {
    code: "ABORTED",
    retry: false,
    meaning: "Another process has the lease now; this one's writes are refused.",
  },
  BUNDLE_CORRUPT: {
    code: "DATA_LOSS",
    retry: false,
    meaning: "A bundle's file is missing, cut short, altered or not understood.",
  },
  STORE_CORRUPT: { code: "DATA_LOSS", retry: false, meaning: "The job store's file failed its integrity check." },
  DEVICE_MISSING: {
    code: "UNIMPLEMENTED",
    retry: false,
    meaning: "The configured device or execution provider is not on this machine.",
  },
  UNSUPPORTED: {
    code: "UNIMPLEMENTED",
    retry: false,
    meaning: "The model or request needs something this build does not have.",
  },
  CONFIG_INVALID: {
    code: "FAILED_PRECONDITION",
    retry: false,
    meaning: "A setting is missing or wrong; the variable, its value and what is allowed are named.",
  },
  INTERNAL: {
    code: "INTERNAL",
    retry: false,
    meaning: "Something unexpected went wrong; the log has the record under the same trace id.",
  },
} as const satisfies Record<string, CatalogueEntry>;
export type Reason = keyof typeof ERRORS;

/** google.rpc.ErrorInfo.domain of every error. */
export const ERROR_DOMAIN = "moevie";

export interface FieldViolation {
  /** Path of the field as the caller wrote it, e.g. "spec.size". */
  readonly field: string;
  /** Value and what is allowed. */
  readonly description: string;
}

/** Memory that was asked for, and what there was. */
export interface MemoryShortage {
  readonly neededBytes: number;
  readonly freeBytes: number;
}

export interface MoevieErrorOptions {
  /** For operators only: never sent to a caller. */
  readonly detail?: string;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number;
  /** Of OUT_OF_MEMORY where both numbers are known. */
  readonly memory?: MemoryShortage | undefined;
  readonly cause?: unknown;
}

/** What failed, told once: `message` is public, `detail` and `cause` are for the log. */
export class MoevieError extends Error {
  override readonly name = "MoevieError";
  readonly reason: Reason;
  readonly detail: string | undefined;
  readonly violations: readonly FieldViolation[];
  readonly retryAfterMs: number | undefined;
  readonly memory: MemoryShortage | undefined;

  constructor(reason: Reason, message: string, options: MoevieErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.detail = options.detail;
    this.violations = options.violations ?? [];
    this.retryAfterMs = options.retryAfterMs;
    this.memory = options.memory;
  }

  get code(): GrpcCodeName {
    return ERRORS[this.reason].code;
  }

  /** May the same call be repeated? */
  get retryable(): boolean {
    return ERRORS[this.reason].retry;
  }
}

/** Is this one of the catalogue's reasons? */
export function isReason(text: string): text is Reason {
  return Object.hasOwn(ERRORS, text);
}

/** Any thrown value as a MoevieError: unknown ones become INTERNAL with fixed public text and the cause kept for the log. */
export function asMoevieError(thrown: unknown): MoevieError {
  if (thrown instanceof MoevieError) return thrown;
  // A package below contracts' users names a reason without importing this class (bundle).
  if (thrown instanceof Error && "reason" in thrown && isReason(String(thrown.reason)))
    return new MoevieError(String(thrown.reason) as Reason, thrown.message, { cause: thrown });
  if (thrown instanceof Error && thrown.name === "AbortError")
    return new MoevieError("CANCELLED", "The call was cancelled.", { cause: thrown });
  if (thrown instanceof Error && thrown.name === "TimeoutError")
    return new MoevieError("DEADLINE", "The call did not finish in its time.", { cause: thrown });
  return new MoevieError("INTERNAL", "Something unexpected went wrong.", {
    cause: thrown,
    detail: thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown),
  });
}
