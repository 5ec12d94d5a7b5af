// One layer's experts: dispatch the rows, wait for the shards, send what was lost to other holders, combine. Only this file
// retries an exchange.
import { asMoevieError, type MoevieError } from "@moevie/contracts";
import { WireType, combine, dispatch } from "@moevie/fabric";
import { chooseReplicas } from "@moevie/placement";
import type { Metrics } from "@moevie/runtime";
import type { ExchangeParts } from "./shard-exchange.ts";
import { askFor, release, type Answered, type LayerCall } from "./shard-work.ts";

/** Rounds that fail at once: the first and a few resends. Those that end with the deadline of an exchange take their time, up to the layer's own. */
const ROUNDS_MAX = 8;
/** Rows under way at which a shard counts as having no room for more. */
const CREDIT_ROWS = 65_536;

/**
 * Writes the layer's expert sums into `out` [tokens, d]. Throws EXPERT_MISSING when no shard holds an expert in time,
 * CANCELLED on the signal, or what the last attempt failed with.
 */
export async function runExpertLayer(parts: ExchangeParts, call: LayerCall, out: Float32Array): Promise<void> {
  const { hedges, links, metrics } = parts;
  const answered: Answered[] = [];
  const avoided = new Set<number>();
  const attempts = { next: 0 };
  /** The choices that are still to be answered; negative where one is. */
  const open = call.choice.ids.slice();
  for (let rounds = 0; ;) {
    const shardOf = await assign(parts, call, open, avoided);
    const works = dispatch(call.choice, { shardOf, experts: links.experts, shards: links.clients.length });
    const attempt = attempts.next++;
    const outcomes = await Promise.allSettled(works.map((work) => askFor(parts, call, work, attempts, attempt)));
    const lost = new Set<number>();
    let failure: MoevieError | undefined;
    outcomes.forEach((outcome, index) => {
      if (outcome.status === "fulfilled") {
        answered.push(...outcome.value);
        return;
      }
      const shard = works[index]?.shard ?? -1;
      lost.add(shard);
      failure = asMoevieError(outcome.reason);
      // A shard that holds something else by now has said so: nothing failed.
      if (failure.reason === "STALE_PLACEMENT") return;
      metrics.add("moevie_exchange_retries_total", { shard: String(shard) });
      avoided.add(shard);
      if (failure.reason === "DEADLINE") hedges.late(shard, performance.now());
    });
    if (failure === undefined) break;
    if (failure.reason !== "DEADLINE") rounds++;
    const isOver = rounds >= ROUNDS_MAX || performance.now() >= call.endMs;
    if (!failure.retryable || call.signal.aborted || isOver) {
      release(answered);
      throw failure;
    }
    shardOf.forEach((shard, at) => {
      if (!lost.has(shard)) open[at] = -1;
    });
  }
  answered.sort((a, b) => a.place - b.place || a.work.shard - b.work.shard);
  combine(
    answered.map(({ work, answer }) => ({ rows: work.rows, partial: answer.partial })),
    call.d,
    out,
  );
  observeImbalance(metrics, answered, links.present);
  release(answered);
}

/**
 * The shard to ask for each open choice, waiting for one to appear where an expert that is needed has none. Shards that failed are asked
 * again only when nobody else holds the expert. Of several holders each row goes where it goes anyway, else to those with fewest rows
 * under way, and to none that was late lately; with more than two experts a row, or products that are rounded on the wire, that would decide
 * how its sum is rounded, so there all count alike.
 */
async function assign(
  { donors, hedges, links, wire }: ExchangeParts,
  call: LayerCall,
  open: Int32Array,
  avoided: Set<number>,
): Promise<Int32Array> {
  const { k } = call.choice;
  const isAlike = k > 2 || wire !== WireType.f32;
  for (;;) {
    const holders = links.holders(call.layer, avoided);
    const missing = open.find((expert) => expert >= 0 && (holders[expert]?.length ?? 0) === 0);
    if (missing === undefined) {
      const nowMs = performance.now();
      const asked = isAlike ? holders : holders.map((shards) => hedges.inTime(shards, nowMs));
      const credits = Array.from(links.rowsInFlight, (rows) =>
        isAlike ? CREDIT_ROWS : Math.max(1, CREDIT_ROWS - rows),
      );
      return chooseReplicas({ ids: open, k, holders: asked, sameHost: links.sameHost, credits });
    }
    if (avoided.size > 0) {
      avoided.clear();
      if ((links.holders(call.layer, avoided)[missing]?.length ?? 0) > 0) continue;
    }
    const text = `No connected shard holds expert ${missing} of layer ${call.layer}.`;
    await donors.wait(call.signal, call.endMs, call.layer, text);
  }
}

/** Largest over mean (row, expert) entries per shard. */
function observeImbalance(metrics: Metrics, answered: readonly Answered[], shards: number): void {
  const entries = answered.map(({ work }) => work.csr.rowIndex.length);
  const sum = entries.reduce((total, count) => total + count, 0);
  if (sum > 0) metrics.set("moevie_expert_imbalance_ratio", {}, (Math.max(...entries) * shards) / sum);
}
