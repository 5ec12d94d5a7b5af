// The OpenTelemetry half of tracing, imported only when an OTLP endpoint is configured.
import { SpanStatusCode, context, propagation, trace, type Context } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { ParentBasedSampler, TraceIdRatioBasedSampler } from "@opentelemetry/sdk-trace";
import type { Tracing } from "./tracing.ts";

/** Starts the SDK: batch export to `endpoint`/v1/traces, parent-based sampling by `sampleRatio`. */
export function openOtlpTracing(options: {
  readonly service: string;
  readonly endpoint: string;
  readonly sampleRatio: number;
}): Tracing {
  const sdk = new NodeSDK({
    serviceName: `moevie-${options.service}`,
    traceExporter: new OTLPTraceExporter({ url: `${options.endpoint.replace(/\/$/, "")}/v1/traces` }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(options.sampleRatio) }),
    instrumentations: [],
  });
  sdk.start();
  const tracer = trace.getTracer("moevie");
  return {
    span: (name, { traceparent, attributes }, work) =>
      tracer.startActiveSpan(name, { attributes: { ...attributes } }, parentOf(traceparent), async (span) => {
        const carrier: Record<string, string> = {};
        propagation.inject(trace.setSpan(context.active(), span), carrier);
        try {
          return await work({
            traceparent: carrier["traceparent"] ?? "",
            set: (more) => void span.setAttributes({ ...more }),
          });
        } catch (thrown) {
          span.setStatus({ code: SpanStatusCode.ERROR, message: thrown instanceof Error ? thrown.name : "error" });
          throw thrown;
        } finally {
          span.end();
        }
      }),
    record: (name, traceparent, startMs, endMs, attributes) => {
      tracer.startSpan(name, { startTime: startMs, attributes: { ...attributes } }, parentOf(traceparent)).end(endMs);
    },
    close: () => sdk.shutdown(),
  };
}

function parentOf(traceparent: string | undefined): Context {
  return traceparent === undefined ? context.active() : propagation.extract(context.active(), { traceparent });
}
