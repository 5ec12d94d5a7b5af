// One trace a job over all services: a real cluster sends OTLP to a collector on loopback, which is a plain HTTP server here.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import protobuf from "protobufjs";
import { expect, it } from "vitest";
import { CliSession } from "./cli-session.ts";

/** The fields of opentelemetry/proto/collector/trace/v1 that the test reads. */
const OTLP = protobuf
  .parse(`
  syntax = "proto3";
  message Export { repeated ResourceSpans resource_spans = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
  message Resource { repeated KeyValue attributes = 1; }
  message KeyValue { string key = 1; AnyValue value = 2; }
  message AnyValue { string string_value = 1; }
  message ScopeSpans { repeated Span spans = 2; }
  message Span { bytes trace_id = 1; bytes span_id = 2; bytes parent_span_id = 4; string name = 5; }
`)
  .root.lookupType("Export");

interface Export {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: readonly { key: string; value: { stringValue: string } }[] };
    readonly scopeSpans: readonly { readonly spans: readonly { traceId: Uint8Array; name: string }[] }[];
  }[];
}

interface Seen {
  readonly service: string;
  readonly trace: string;
  readonly name: string;
}

/** Spans that a collector hears of while one clip is made with these settings. */
async function spansOfClip(settings: Readonly<Record<string, string>>): Promise<Seen[]> {
  const seen: Seen[] = [];
  const collector = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const body = OTLP.toObject(OTLP.decode(Buffer.concat(parts)), { defaults: true, arrays: true }) as Export;
      for (const { resource, scopeSpans } of body.resourceSpans) {
        const service = resource.attributes.find(({ key }) => key === "service.name")?.value.stringValue ?? "";
        for (const span of scopeSpans.flatMap(({ spans }) => spans))
          seen.push({ service, trace: Buffer.from(span.traceId).toString("hex"), name: span.name });
      }
      response.writeHead(200, { "content-type": "application/x-protobuf" }).end();
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
  const session = new CliSession({ OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, ...settings });
  try {
    const result = await session.run("generate", "a red ball", "--steps", "3", "--size", "256x256", "--seconds", "0.5");
    expect(result).toMatchObject({ code: 0 });
    return seen;
  } finally {
    session.close();
    collector.close();
  }
}

it("a clip is one trace: gateway, scheduler, text-encoder, router, shards and decoder, steps and exchanges among its spans", async () => {
  const seen = await spansOfClip({});
  const traceOfJob = seen.find(({ name }) => name === "job")?.trace;
  expect(traceOfJob).toMatch(/^[0-9a-f]{32}$/);
  const ours = seen.filter(({ trace }) => trace === traceOfJob);
  const services = new Set(ours.map(({ service }) => service.replace(/-\d+$/, "")));
  expect([...services].sort()).toEqual(
    ["decoder", "expert-shard", "gateway", "router", "scheduler", "text-encoder"].map((name) => `moevie-${name}`),
  );
  const names = ours.map(({ name }) => name);
  expect(names.filter((name) => name === "exchange").length).toBeGreaterThan(3);
  for (const wanted of ["create-video", "job", "denoise-step"]) expect(names).toContain(wanted);
});

it("a share of 0 traces no job in any service", async () => {
  expect(await spansOfClip({ OTEL_TRACES_SAMPLER_ARG: "0" })).toEqual([]);
});
