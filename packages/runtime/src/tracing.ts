// Traces: one per job across all services. OpenTelemetry is loaded only when an endpoint is configured; without it the
// trace id still travels (W3C trace context), so that logs of all services can be joined.
import { randomBytes } from "node:crypto";

type Attributes = Readonly<Record<string, string | number | boolean>>;

export interface SpanHandle {
  /** W3C traceparent to hand on to the next service. */
  readonly traceparent: string;
  set(attributes: Attributes): void;
}

export interface Tracing {
  /** Runs `work` inside a span; a thrown error marks the span. `traceparent` is the parent; without one a new trace begins. */
  span<T>(
    name: string,
    options: { readonly traceparent?: string | undefined; readonly attributes?: Attributes },
    work: (span: SpanHandle) => Promise<T>,
  ): Promise<T>;
  /** Records a span that is already over (epoch milliseconds). */
  record(name: string, traceparent: string | undefined, startMs: number, endMs: number, attributes?: Attributes): void;
  close(): Promise<void>;
}

/** A fresh W3C traceparent. */
function newTraceparent(): string {
  return `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-01`;
}

/** The trace id of a traceparent, for logs. */
export function traceIdOf(traceparent: string | undefined): string | undefined {
  return /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/.exec(traceparent ?? "")?.[1];
}

/** Opens tracing for a service: OTLP over HTTP to `endpoint`, or ids only when it is empty. */
export async function openTracing(options: {
  readonly service: string;
  readonly endpoint: string;
  readonly sampleRatio: number;
}): Promise<Tracing> {
  if (options.endpoint === "") return ID_ONLY;
  const { openOtlpTracing } = await import("./tracing-otlp.ts");
  return openOtlpTracing(options);
}

const ID_ONLY: Tracing = {
  span: (_name, { traceparent }, work) => work({ traceparent: traceparent ?? newTraceparent(), set: () => undefined }),
  record: () => undefined,
  close: () => Promise.resolve(),
};
