// One layer's experts: dispatch the rows, wait for the shards, send what was lost to other holders, combine. Only this file
// retries an exchange.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import { combine, dispatch } from "@moevie/fabric";
import type { ExchangeOptions, ExchangePartial, GateChoice, ShardWork, WireType } from "@moevie/fabric";
import { chooseReplicas } from "@moevie/placement";
import type { Metrics, Tracing } from "@moevie/runtime";
import type { ShardLinks } from "./shard-links.ts";

/** Attempts per layer: the first and a few resends, each to shards that have not failed it yet. */
const EXCHANGE_ATTEMPTS_MAX = 8;
/** Rows under way at which a shard counts as having no room for more. */
const CREDIT_ROWS = 65_536;

export interface LayerCall {
  readonly layer: number;
  readonly branch: number;
  /** [tokens, d]. */
  readonly rows: Float32Array;
  readonly choice: GateChoice;
  readonly d: number;
  readonly signal: AbortSignal;
  /** performance.now() by which the layer must be done. */
  readonly endMs: number;
  readonly traceparent: string | undefined;
}

interface Answered {
  readonly work: ShardWork;
  readonly answer: ExchangePartial;
}

export interface ExpertLayerOptions {
  readonly links: ShardLinks;
  readonly wire: WireType;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
}

/**
 * Writes the layer's expert sums into `out` [tokens, d]. Throws EXPERT_MISSING when no shard holds an expert in time,
 * CANCELLED on the signal, or what the last attempt failed with.
 */
export async function runExpertLayer(options: ExpertLayerOptions, call: LayerCall, out: Float32Array): Promise<void> {
  const { links } = options;
  const answered: Answered[] = [];
  const avoided = new Set<number>();
  /** The choices that are still to be answered; negative where one is. */
  const open = call.choice.ids.slice();
  for (let attempt = 0; ; attempt++) {
    const shardOf = await assign(links, call, open, avoided);
    const works = dispatch(call.choice, { shardOf, experts: links.experts, shards: links.sameHost.length });
    const outcomes = await Promise.allSettled(works.map((work) => send(options, call, work, attempt)));
    const lost = new Set<number>();
    let failure: MoevieError | undefined;
    outcomes.forEach((outcome, index) => {
      const work = works[index] as ShardWork;
      if (outcome.status === "fulfilled") {
        answered.push({ work, answer: outcome.value });
        return;
      }
      lost.add(work.shard);
      failure = asMoevieError(outcome.reason);
      // A shard that holds something else by now has said so: nothing failed.
      if (failure.reason === "STALE_PLACEMENT") return;
      options.metrics.add("moevie_exchange_retries_total", { shard: String(work.shard) });
      avoided.add(work.shard);
    });
    if (failure === undefined) break;
    if (!failure.retryable || call.signal.aborted || attempt + 1 >= EXCHANGE_ATTEMPTS_MAX) {
      for (const { answer } of answered) answer.release();
      throw failure;
    }
    shardOf.forEach((shard, at) => {
      if (!lost.has(shard)) open[at] = -1;
    });
  }
  answered.sort((a, b) => a.work.shard - b.work.shard);
  combine(
    answered.map(({ work, answer }) => ({ rows: work.rows, partial: answer.partial })),
    call.d,
    out,
  );
  observeImbalance(options.metrics, answered, links.present);
  for (const { answer } of answered) answer.release();
}

/**
 * The shard to ask for each open choice, waiting for one to appear where an expert that is needed has none. Shards that failed are asked
 * again only when nobody else holds the expert. Of several holders each row goes where it goes anyway, else to those with fewest rows
 * under way; with more than two experts a row that would decide the order of its sums, so there all count alike.
 */
async function assign(links: ShardLinks, call: LayerCall, open: Int32Array, avoided: Set<number>): Promise<Int32Array> {
  for (;;) {
    const holders = links.holders(call.layer, avoided);
    const missing = open.find((expert) => expert >= 0 && (holders[expert]?.length ?? 0) === 0);
    if (missing === undefined) {
      const { k } = call.choice;
      const credits = Array.from(links.rowsInFlight, (rows) => (k > 2 ? CREDIT_ROWS : Math.max(1, CREDIT_ROWS - rows)));
      return chooseReplicas({ ids: open, k, holders, sameHost: links.sameHost, credits });
    }
    if (avoided.size > 0) {
      avoided.clear();
      if ((links.holders(call.layer, avoided)[missing]?.length ?? 0) > 0) continue;
    }
    const text = `No connected shard holds expert ${missing} of layer ${call.layer}.`;
    await links.waitForChange(call.signal, call.endMs, text);
  }
}

async function send(
  options: ExpertLayerOptions,
  { layer, branch, rows: source, d, signal, endMs, traceparent }: LayerCall,
  { shard, rows, csr }: ShardWork,
  attempt: number,
): Promise<ExchangePartial> {
  const { rowsInFlight } = options.links;
  const asked = { csr, layer, branch, attempt, source, d, rows };
  rowsInFlight[shard]! += rows.length;
  try {
    return await exchangeWith(options, shard, { ...asked, signal, endMs, traceparent });
  } finally {
    rowsInFlight[shard]! -= rows.length;
  }
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

/** One exchange with a shard, counted, timed and traced. Throws what the exchange throws. */
export async function exchangeWith(
  { links, wire, metrics, tracing }: ExpertLayerOptions,
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
  metrics.observe("moevie_exchange_duration_seconds", { shard }, (endMs - startMs) / 1000);
  const [queue, compute] = [answer.queueUs / 1e6, answer.computeUs / 1e6];
  const onWire = Math.max(0, (endMs - startMs) / 1000 - queue - compute);
  for (const [part, seconds] of Object.entries({ wire: onWire, queue, compute }))
    metrics.add("moevie_exchange_seconds_total", { shard, part }, seconds);
  metrics.add("moevie_exchange_bytes_total", { shard, direction: "out" }, answer.bytesOut);
  metrics.add("moevie_exchange_bytes_total", { shard, direction: "in" }, answer.bytesIn);
  tracing.record("exchange", traceparent, performance.timeOrigin + startMs, performance.timeOrigin + endMs, {
    layer: asked.layer,
    shard: number,
    attempt: asked.attempt,
    rows: asked.rows.length,
    queue_us: answer.queueUs,
    compute_us: answer.computeUs,
  });
  return answer;
}

/** Largest over mean (row, expert) entries per shard. */
function observeImbalance(metrics: Metrics, answered: readonly Answered[], shards: number): void {
  const entries = answered.map(({ work }) => work.csr.rowIndex.length);
  const sum = entries.reduce((total, count) => total + count, 0);
  if (sum > 0) metrics.set("moevie_expert_imbalance_ratio", {}, (Math.max(...entries) * shards) / sum);
}
