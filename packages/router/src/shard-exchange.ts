// One exchange with one shard, counted, timed and traced. Repeats nothing.
import { MoevieError } from "@moevie/contracts";
import type { DenoiserUnit, ExchangeOptions, ExchangePartial, ExpertRows, WireType } from "@moevie/fabric";
import type { Metrics, Tracing } from "@moevie/runtime";
import type { Donors } from "./donors.ts";
import type { ExchangeKind, HedgePolicy } from "./hedge-policy.ts";
import type { ShardLinks } from "./shard-links.ts";

export interface ExchangeParts {
  readonly links: ShardLinks;
  readonly wire: WireType;
  readonly hedges: HedgePolicy;
  readonly donors: Donors;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
}

/** What is asked of a shard, but for what the link to it knows. */
type Asked = ExchangeOptions extends infer Options
  ? Options extends ExchangeOptions
    ? Omit<Options, "epoch" | "wire" | "timeoutMs" | "signal" | "traceparent">
    : never
  : never;

interface Call {
  readonly signal: AbortSignal;
  /** performance.now() by which the answer must be here. */
  readonly endMs: number;
  readonly traceparent: string | undefined;
}

/** Exchanges that take about as long: of as many rows and experts within a factor of two, or of latents of the same size. */
export function kindOf({
  csr,
  unit,
}: {
  readonly csr?: ExpertRows | undefined;
  readonly unit?: DenoiserUnit | undefined;
}): ExchangeKind {
  if (unit !== undefined) return { name: `latent ${unit.shape.join("x")} text ${unit.tokens}` };
  const [rowsLog2, expertsLog2] = [log2(csr?.rowIndex.length), log2(csr?.experts.length)];
  return { name: `rows ${rowsLog2} experts ${expertsLog2}`, size: { rowsLog2, expertsLog2 } };
}

const log2 = (count = 1): number => Math.ceil(Math.log2(count));

/** Throws what the exchange throws. */
export async function exchangeWith(
  { links, wire, hedges, metrics, tracing }: ExchangeParts,
  number: number,
  { endMs: deadlineMs, traceparent, ...asked }: Asked & Call,
): Promise<ExchangePartial> {
  const client = links.clients[number];
  if (client === undefined) throw new MoevieError("INTERNAL", "An exchange has no shard.");
  const shard = String(number);
  const startMs = performance.now();
  const answer = await client.exchange({
    ...asked,
    wire,
    epoch: client.holds()?.epoch ?? 0,
    timeoutMs: deadlineMs - startMs,
    ...(traceparent === undefined ? {} : { traceparent }),
  });
  const endMs = performance.now();
  hedges.answered(number, kindOf(asked), endMs - startMs);
  metrics.observe("moevie_exchange_duration_seconds", { shard }, (endMs - startMs) / 1000);
  for (const [part, us] of Object.entries(partsOf(answer, (endMs - startMs) * 1000)))
    metrics.add("moevie_exchange_seconds_total", { shard, part }, us / 1e6);
  metrics.add("moevie_exchange_bytes_total", { shard, direction: "out" }, answer.bytesOut);
  metrics.add("moevie_exchange_bytes_total", { shard, direction: "in" }, answer.bytesIn);
  tracing.record("exchange", traceparent, performance.timeOrigin + startMs, performance.timeOrigin + endMs, {
    layer: asked.layer,
    shard: number,
    attempt: asked.attempt,
    rows: asked.rows.length,
    credit_us: Math.round(answer.creditUs),
    ...(answer.upUs === undefined ? {} : { wire_up_us: Math.round(answer.upUs) }),
    queue_us: answer.queueUs,
    compute_us: answer.computeUs,
  });
  return answer;
}

/** Where an exchange's time went, in microseconds; together `tookUs`. A shard that does not say when a request was there leaves the wire whole. */
function partsOf({ creditUs, upUs, queueUs, computeUs }: ExchangePartial, tookUs: number): Record<string, number> {
  const wireUs = Math.max(0, tookUs - creditUs - queueUs - computeUs);
  const wire = upUs === undefined ? { wire: wireUs } : { wire_up: upUs, wire_down: Math.max(0, wireUs - upUs) };
  return { credit: creditUs, queue: queueUs, compute: computeUs, ...wire };
}
