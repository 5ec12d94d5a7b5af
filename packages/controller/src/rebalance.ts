// Brings shards from what they hold to a placement, layer by layer; a layer that cannot be brought there is taken back. Decides nothing.
import { asMoevieError } from "@moevie/contracts";
import type { MoevieError } from "@moevie/contracts";
import { ofLayer } from "@moevie/placement";
import type { Placement } from "@moevie/placement";
import { pause } from "@moevie/runtime";
import type { Member } from "./cluster-view.ts";
import { layerStages } from "./layer-stages.ts";
import type { Stage } from "./layer-stages.ts";

/** Longest a shard may load one layer. */
const OPERATION_MS_MAX = 120_000;

export interface RebalanceOptions {
  readonly members: readonly Member[];
  readonly held: Placement;
  /** For as many shards as there are members, in their order. */
  readonly wanted: Placement;
  readonly layers: number;
  readonly fence: number;
  readonly signal: AbortSignal;
  /** How much longer than a change took shards rest after it; 0: steps wait. */
  readonly restRatio: number;
  /** Called before each stage; throws to stop between two. */
  readonly onStage: (layer: number, stage: Stage["kind"]) => void;
}

export interface RebalanceFailure {
  readonly error: MoevieError;
  readonly layer: number;
  /** Which of the members did not become what it was told to. */
  readonly member: number;
  /** Experts of the layer that it was told to hold, and those it had then. */
  readonly asked: readonly number[];
  readonly held: readonly number[];
}

export interface RebalanceOutcome {
  readonly layersChanged: number;
  /** Set: this layer was taken back as far as its shards could be told, and those after it were not begun. */
  readonly failure?: RebalanceFailure;
}

/** Returns once every layer is as wanted, or one was taken back. Throws what `onStage` throws, and LEASE_LOST. */
export async function rebalance(options: RebalanceOptions): Promise<RebalanceOutcome> {
  const { held, wanted, layers } = options;
  let epoch = held.epoch;
  let layersChanged = 0;
  for (let layer = 0; layer < layers; layer++) {
    const [before, after] = [byShard(held, layer), byShard(wanted, layer)];
    const stages = layerStages(before, after);
    const now = before.map((experts): readonly number[] => experts);
    let changes: Stage["changes"] = [];
    try {
      for (const stage of stages) {
        changes = stage.changes;
        options.onStage(layer, stage.kind);
        await applyStage(options, layer, ++epoch, stage, now);
      }
    } catch (thrown) {
      const error = asMoevieError(thrown);
      const failed = changes.find(({ shard, experts }) => now[shard] !== experts);
      if (options.signal.aborted || error.reason === "LEASE_LOST" || failed === undefined) throw error;
      const failure = { layer, error, member: failed.shard, asked: failed.experts, held: now[failed.shard] ?? [] };
      // What could not be given back is not taken away where it went.
      for (const stage of layerStages(now, takenBack(before, now)))
        if (!(await isApplied(applyStage(options, layer, ++epoch, stage, now)))) break;
      return { layersChanged, failure };
    }
    if (stages.length > 0) layersChanged++;
  }
  return { layersChanged };
}

/** What shards held, and what came since that nobody had held: steps may count on it by now. */
function takenBack(before: readonly (readonly number[])[], now: readonly (readonly number[])[]): number[][] {
  const had = new Set(before.flat());
  return now.map((experts, shard) => [...(before[shard] ?? []), ...experts.filter((expert) => !had.has(expert))]);
}

/** Makes the changes of a stage one after the other, with rests between them; `now` learns of those that were made. Throws what the first that fails throws. */
async function applyStage(
  { members, fence, signal, restRatio }: RebalanceOptions,
  layer: number,
  epoch: number,
  { changes }: Stage,
  now: (readonly number[])[],
): Promise<void> {
  for (const { shard, experts } of changes) {
    const operationId = `${fence}.${epoch}.${layer}.${shard}`;
    const startMs = performance.now();
    const target = { operationId, fence, epoch, layer, experts, deadlineMs: OPERATION_MS_MAX };
    await members[shard]?.control.apply(target, signal);
    now[shard] = experts;
    if (restRatio > 0) await pause((performance.now() - startMs) * restRatio, signal);
  }
}

function isApplied(stage: Promise<void>): Promise<boolean> {
  return stage.then(
    () => true,
    () => false,
  );
}

/** Experts of one layer, [shards][any]. */
function byShard({ shards }: Placement, layer: number): number[][] {
  return shards.map((shard) => ofLayer(shard, layer));
}
