// The rows of one shard: asked of it, and when it is late, of others that hold the same experts. Repeats nothing that failed.
import { WireType, dispatch } from "@moevie/fabric";
import type { ExchangePartial, GateChoice, ShardWork } from "@moevie/fabric";
import { chooseReplicas } from "@moevie/placement";
import { hedged } from "./hedge.ts";
import { exchangeWith, kindOf, type ExchangeParts } from "./shard-exchange.ts";

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

export interface Answered {
  /** The shard whose place in the order of sums this has: the one first meant to be asked. */
  readonly place: number;
  readonly work: ShardWork;
  readonly answer: ExchangePartial;
}

/** The number of the attempt that comes next in a layer. */
export interface Attempts {
  next: number;
}

/** All of `work`, in one answer or several. Throws what the exchange with its shard throws. */
export async function askFor(
  parts: ExchangeParts,
  call: LayerCall,
  work: ShardWork,
  attempts: Attempts,
  attempt: number,
): Promise<readonly Answered[]> {
  const { hedges, links, metrics } = parts;
  const { shard } = work;
  const ask = (works: readonly ShardWork[], number: number, signal: AbortSignal): Promise<readonly Answered[]> =>
    together(works.map((each) => send(parts, { ...call, signal }, each, number, shard)));
  const lateAfterMs = hedges.lateAfterMs(shard, kindOf({ csr: work.csr }));
  const all = links.holders(call.layer, new Set());
  const isCopied = work.csr.experts.every((expert) => (all[expert]?.length ?? 0) > 1);
  const { answer, won } = await hedged({
    first: (signal) => ask([work], attempt, signal),
    second: (signal) => {
      const others = standIns(parts, call, work);
      return others === undefined || !hedges.take() ? undefined : ask(others, attempts.next++, signal);
    },
    lateAfterMs: isCopied ? lateAfterMs : Infinity,
    signal: call.signal,
    discard: release,
  });
  if (won === "second") hedges.late(shard, performance.now());
  if (won !== undefined)
    metrics.add("moevie_exchange_hedges_total", { shard: String(shard), outcome: won === "second" ? "won" : "lost" });
  return answer;
}

/** Gives the memory of answers back. */
export function release(answered: readonly Answered[]): void {
  for (const { answer } of answered) answer.release();
}

async function send(
  parts: ExchangeParts,
  { layer, branch, rows: source, d, signal, endMs, traceparent }: LayerCall,
  work: ShardWork,
  attempt: number,
  place: number,
): Promise<Answered> {
  const { shard, rows, csr } = work;
  const { rowsInFlight } = parts.links;
  const asked = { csr, layer, branch, attempt, source, d, rows };
  rowsInFlight[shard]! += rows.length;
  try {
    return { place, work, answer: await exchangeWith(parts, shard, { ...asked, signal, endMs, traceparent }) };
  } finally {
    rowsInFlight[shard]! -= rows.length;
  }
}

/** All answers, or none: those that came are given back when one failed. */
async function together(calls: readonly Promise<Answered>[]): Promise<readonly Answered[]> {
  try {
    return await Promise.all(calls);
  } catch (thrown) {
    for (const call of calls) call.then((answered) => release([answered])).catch(() => undefined);
    throw thrown;
  }
}

/**
 * The same work for others than its shard; undefined where they do not hold it all. One that holds all of it gives the very answer its
 * shard would give. Split over several, each row has its products added by the router: of two in f32 the sum is the same, of more or of
 * rounded ones it need not be.
 */
function standIns(parts: ExchangeParts, call: LayerCall, work: ShardWork): readonly ShardWork[] | undefined {
  const { hedges, links, wire } = parts;
  const { k } = call.choice;
  const nowMs = performance.now();
  const holders = links.holders(call.layer, new Set([work.shard])).map((shards) => hedges.inTime(shards, nowMs));
  const experts = [...work.csr.experts];
  if (experts.some((expert) => (holders[expert]?.length ?? 0) === 0)) return undefined;
  const whole = (holders[experts[0] ?? 0] ?? []).filter((shard) =>
    experts.every((expert) => holders[expert]?.includes(shard)),
  );
  const rowsAt = (shard: number): number => links.rowsInFlight[shard] ?? 0;
  const [first, ...others] = whole;
  if (first !== undefined)
    return [{ ...work, shard: others.reduce((best, shard) => (rowsAt(shard) < rowsAt(best) ? shard : best), first) }];
  if (k > 2 || wire !== WireType.f32) return undefined;
  const credits = links.clients.map(() => 1);
  const shardOf = chooseReplicas({ ids: idsOf(call.choice, work), k, holders, sameHost: links.sameHost, credits });
  return dispatch(call.choice, { shardOf, experts: links.experts, shards: links.clients.length });
}

/** The choices that `work` is made of, [tokens · k]; negative elsewhere. */
function idsOf({ ids, k }: GateChoice, { rows, csr }: ShardWork): Int32Array {
  const own = new Int32Array(ids.length).fill(-1);
  csr.experts.forEach((expert, j) => {
    for (let entry = csr.offsets[j] ?? 0; entry < (csr.offsets[j + 1] ?? 0); entry++)
      own[ids.indexOf(expert, (rows[csr.rowIndex[entry] ?? 0] ?? 0) * k)] = expert;
  });
  return own;
}
