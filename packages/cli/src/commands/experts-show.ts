// `moevie experts`: how much each expert is used in each phase of a job's steps, where experts lie, and what a plan made from that would
// change. Asks a gateway, or a router, over HTTP.
import {
  PlacementError,
  explainPlan,
  holdersOf,
  parseLoads,
  planPlacement,
  type PlacementPlan,
  type PlanBalance,
} from "@moevie/placement";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { CommandError, InterruptedError, UsageError } from "../failure.ts";

const ANSWER_MS_MAX = 5_000;
/** Least to most of a phase's rows, none of them first. */
const BARS = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const EXPERTS_A_LINE = 64;
/** Experts without room that are named; of more, the number is said. */
const NAMED_MAX = 8;

/** What one router answers. */
interface RouterAnswer {
  readonly rows: readonly (readonly number[])[];
  readonly phases: readonly { readonly fromTimestep: number; readonly rows: readonly (readonly number[])[] }[];
  readonly epoch: number;
  readonly shards: readonly {
    readonly address: string;
    readonly ready: boolean;
    /** What rows go by; a router of an older version does not say. */
    readonly path?: string;
    readonly slots: readonly (readonly [layer: number, expert: number])[];
  }[];
}

/** What a controller answers, as far as it is shown. */
interface ControllerAnswer {
  readonly leads: boolean;
  readonly fence?: number;
  readonly why?: string;
  readonly suspects: readonly string[];
  readonly refusals: readonly {
    readonly shard: number;
    readonly layer: number;
    readonly asked: number;
    readonly room: number;
    readonly why: string;
    readonly ageMs: number;
  }[];
  /** Experts that no shard has room for. */
  readonly unplaced: readonly (readonly [layer: number, expert: number])[];
  readonly lastRebalance?: {
    readonly outcome: string;
    readonly why: string;
    readonly layersChanged: number;
    readonly tookMs: number;
    readonly ageMs: number;
  };
}

interface GatewayAnswer {
  readonly routers: Readonly<Record<string, RouterAnswer | null>>;
  readonly controllers?: Readonly<Record<string, ControllerAnswer | null>>;
}

interface Answers {
  readonly routers: readonly RouterAnswer[];
  /** The one that leads, where the gateway knows one. */
  readonly controller: ControllerAnswer | undefined;
}

export async function showExperts(
  context: CommandContext,
  _args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const { routers, controller } = await askForExperts(context, textFlag(flags, "http") ?? "");
  const [first] = routers;
  if (first === undefined) throw new CommandError("no router answered: none is up, or the gateway knows none");
  const loads = summed(routers.map(({ rows }) => rows));
  const phases = first.phases.map(({ fromTimestep }, phase) => ({
    fromTimestep,
    rows: summed(routers.map((router) => router.phases[phase]?.rows ?? [])),
  }));
  const plan = planned(loads, first);
  const ready = first.shards.map((shard) => shard.ready);
  const holders = loads.map((rows, layer) => holdersOf(first.shards, ready, layer, rows.length));
  return {
    json: {
      routers: routers.length,
      epoch: first.epoch,
      rows: loads,
      phases,
      shards: first.shards,
      holders,
      ...(controller === undefined ? {} : { controller }),
      ...(plan === undefined ? {} : { plan: { balancedness: plan.balancedness, explanation: explainPlan(plan) } }),
    },
    lines: [
      `${routers.length} router${routers.length > 1 ? "s" : ""}, epoch ${first.epoch}`,
      ...loads.flatMap((rows, layer) => layerLines(rows, layer, phases, holders[layer] ?? [])),
      "",
      "where they lie",
      ...first.shards.map(shardLine),
      ...(plan === undefined ? [] : [balanceLine(plan.balancedness)]),
      "",
      ...(controller === undefined ? [] : [...controllerLines(controller), ""]),
      ...(plan === undefined
        ? ["no plan fits: a shard is away, or holds nothing"]
        : ["a plan now", ...explainPlan(plan)]),
    ],
  };
}

/** What all routers behind `address` answer, and the controller that leads. Throws UsageError, CommandError where nobody answers. */
async function askForExperts(context: CommandContext, address: string): Promise<Answers> {
  if (!/^(\[[0-9a-f:]+\]|[^\s:/]+):\d{1,5}$/i.test(address))
    throw new UsageError([{ flag: "--http", value: address, allowed: "HOST:PORT, e.g. 127.0.0.1:7901" }]);
  const { signal } = context.interruption;
  try {
    const response = await fetch(`http://${address}/experts`, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS_MAX)]),
    });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const answer = (await response.json()) as RouterAnswer | GatewayAnswer;
    const { routers, controllers = {} } = "routers" in answer ? answer : { routers: { one: answer } };
    const answers = Object.values(routers).filter((router) => router !== null);
    // Wrong loads are told of here, not where they are drawn.
    for (const router of answers) parseLoads(router);
    return { routers: answers, controller: Object.values(controllers).find((each) => each?.leads) ?? undefined };
  } catch (thrown) {
    if (signal.aborted) throw new InterruptedError();
    const cause = (thrown as Error).cause;
    const why = cause instanceof Error ? cause.message : (thrown as Error).message;
    throw new CommandError(`http://${address}/experts gave no answer about experts: ${why}`);
  }
}

/** Sums of tables of one shape. */
function summed(tables: readonly (readonly (readonly number[])[])[]): number[][] {
  const [first = []] = tables;
  return first.map((rows, layer) =>
    rows.map((_, expert) => tables.reduce((sum, table) => sum + (table[layer]?.[expert] ?? 0), 0)),
  );
}

/**
 * A plan for as many slots of a layer as the fullest shard has on every shard, what lies there kept; undefined where no plan fits, as with
 * a shard that is away.
 */
function planned(loads: readonly (readonly number[])[], { shards, epoch }: RouterAnswer): PlacementPlan | undefined {
  const ofLayer = (layer: number) => (shard: RouterAnswer["shards"][number]) =>
    shard.slots.filter(([of]) => of === layer).length;
  const fullest = Math.max(...loads.flatMap((_, layer) => shards.map(ofLayer(layer))));
  try {
    const shape = { slots: fullest * shards.length, shards: shards.length, groups: 1, nodes: 1 };
    return planPlacement(
      loads.map((rows) => Float64Array.from(rows)),
      shape,
      { epoch, shards: shards.map((shard) => ({ slots: shard.slots })) },
    );
  } catch (thrown) {
    if (thrown instanceof PlacementError) return undefined;
    throw thrown;
  }
}

/** How even the rows of the heat map make shards and slots, now and as planned. */
function balanceLine({ before = 0, equal, slotsBefore = 0, slots }: PlanBalance): string {
  const way = (now: number, then: number): string => `${now.toFixed(4)} (${then.toFixed(4)} with the plan)`;
  return `balancedness over shards ${way(before, equal)}, over slots ${way(slotsBefore, slots)}`;
}

/**
 * A layer's heat map: a line a phase, a column an expert, bars by the most used expert of the phase. Below, how many shards hold each, and
 * which where there are several.
 */
function layerLines(
  rows: readonly number[],
  layer: number,
  phases: readonly { readonly fromTimestep: number; readonly rows: readonly (readonly number[])[] }[],
  holders: readonly (readonly number[])[],
): string[] {
  const most = Math.max(...rows);
  const total = rows.reduce((sum, count) => sum + count, 0);
  const top = `expert ${rows.indexOf(most)} has ${((100 * most) / Math.max(1, total)).toFixed(0)} %`;
  const lines = [`layer ${layer}: ${total.toLocaleString("en")} rows, ${total === 0 ? "none yet" : top}`];
  for (let from = 0; from < rows.length; from += EXPERTS_A_LINE) {
    for (const phase of phases) {
      const counts = phase.rows[layer] ?? [];
      const scale = Math.max(1, ...counts);
      const bars = counts.slice(from, from + EXPERTS_A_LINE).map((count) => BARS[Math.ceil((8 * count) / scale)]);
      lines.push(`  steps from ${String(phase.fromTimestep).padStart(3)}  ${bars.join("")}`);
    }
    const counts = holders.slice(from, from + EXPERTS_A_LINE).map(({ length }) => (length > 9 ? "+" : `${length}`));
    lines.push(`  holders           ${counts.join("")}`);
    lines.push(`  experts ${String(from).padStart(8)}  ${ruler(Math.min(EXPERTS_A_LINE, rows.length - from))}`);
  }
  const several = [...holders.entries()].filter(([, shards]) => shards.length > 1);
  if (several.length > 0)
    lines.push(`  on several shards  ${several.map(([expert, shards]) => `${expert}: ${ranges(shards)}`).join("; ")}`);
  return lines;
}

/** A mark under every eighth column. */
function ruler(columns: number): string {
  return Array.from({ length: columns }, (_, column) => (column % 8 === 0 ? "|" : "·")).join("");
}

function shardLine({ address, ready, path, slots }: RouterAnswer["shards"][number], index: number): string {
  const layers = new Map<number, number[]>();
  for (const [layer, expert] of slots) layers.set(layer, [...(layers.get(layer) ?? []), expert]);
  const held = Array.from(layers, ([layer, experts]) => `${layer}: ${ranges(experts)}`);
  const by = (path ?? "").padEnd("segment".length);
  return `  shard ${index}  ${ready ? "ready" : "away "}  ${by}  ${address.split("/").at(-1)}  ${held.join("; ")}`;
}

/** Who moves experts, what it did last, and what keeps it from doing more. */
function controllerLines({ fence, why, suspects, refusals, unplaced, lastRebalance }: ControllerAnswer): string[] {
  const lines = [`a controller leads, fence ${fence}: ${why ?? "it has not looked yet"}`];
  if (lastRebalance !== undefined) {
    const { outcome, layersChanged, tookMs, ageMs } = lastRebalance;
    const changed = `${layersChanged} ${layersChanged === 1 ? "layer" : "layers"} changed in ${tookMs} ms`;
    lines.push(`  last rebalance ${outcome.replace("_", " ")} ${ago(ageMs)}, ${changed}: ${lastRebalance.why}`);
  }
  if (suspects.length > 0) lines.push(`  no answer from ${suspects.join(", ")}`);
  for (const refusal of refusals) {
    const { shard, layer, asked, room, ageMs } = refusal;
    const what = `shard ${shard} refused to hold ${asked} experts of layer ${layer} ${ago(ageMs)}`;
    lines.push(`  ${what}, and has room for ${room}: ${refusal.why}`);
  }
  const named = unplaced.slice(0, NAMED_MAX).map(([layer, expert]) => `${expert} of layer ${layer}`);
  const count = `${unplaced.length} ${unplaced.length === 1 ? "expert" : "experts"}`;
  if (named.length > 0) lines.push(`  no shard has room for ${count}, of them ${named.join(", ")}`);
  return lines;
}

function ago(ms: number): string {
  return `${Math.round(ms / 1000)} s ago`;
}

/** "0-3 7 9-10". */
function ranges(numbers: readonly number[]): string {
  const sorted = numbers.toSorted((a, b) => a - b);
  const out: string[] = [];
  for (let at = 0; at < sorted.length;) {
    let end = at;
    while (sorted[end + 1] === (sorted[end] ?? 0) + 1) end++;
    out.push(end === at ? `${sorted[at]}` : `${sorted[at]}-${sorted[end]}`);
    at = end + 1;
  }
  return out.join(" ");
}
