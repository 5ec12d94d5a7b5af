// `moevie experts plan`: where experts would lie for given loads, from files alone; no server is asked. Its JSON is a placement, so shards
// can be started with it and the next plan can keep it.
import { readFile, stat } from "node:fs/promises";
import {
  PlacementError,
  balancedness,
  explainLayer,
  explainPlan,
  parseLoads,
  parsePlacement,
  placementOf,
  planPlacement,
  shapeProblems,
  slotsByExpert,
  type LayerPlan,
  type PlacementPlan,
  type PlanShape,
} from "@moevie/placement";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { UsageError } from "../failure.ts";
import { shownBytes } from "../shown-bytes.ts";

const FILE_BYTES_MAX = 64 * 1024 * 1024;
/** Shards of all layers for which each is shown with what it holds. */
const SHARDS_SHOWN_MAX = 64;

const LOADS = 'a JSON file of loads, [[expert 0, expert 1, …], … a layer], or of what a router answers, {"rows": …}';
const KEPT =
  'a JSON file of a placement, {"epoch": 1, "shards": [{"slots": [[layer, expert], …]}, …]}, as this prints them';

export async function planExperts(
  _context: CommandContext,
  _args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const loads = await readJson("--loads", textFlag(flags, "loads") ?? "", LOADS, parseLoads);
  const model = { layers: loads.length, experts: loads[0]?.length ?? 0 };
  const shape = readShape(flags, model);
  const keep = textFlag(flags, "keep");
  const before =
    keep === undefined ? undefined : await readJson("--keep", keep, KEPT, (value) => parsePlacement(value, model));
  const plan = planPlacement(loads, shape, before);
  const placement = placementOf(plan, (before?.epoch ?? 0) + 1);
  return {
    json: {
      ...placement,
      sizes: { ...model, ...shape },
      shares: "equal",
      balancedness: plan.balancedness,
      moves: plan.layers.reduce((sum, { moves }) => sum + moves.length, 0),
      explanation: explainPlan(plan),
      layers: plan.layers.map((layer, index) => ({ ...layerJson(layer), explanation: explainLayer(plan, index) })),
    },
    lines: [...explainPlan(plan), ...layerLines(plan)],
  };
}

/** Reads and parses one file. Throws UsageError that says what is wrong with it. */
async function readJson<T>(flag: string, path: string, allowed: string, parse: (value: unknown) => T): Promise<T> {
  const refuse = (why: string): UsageError => new UsageError([{ flag, value: path, allowed: `${allowed}; ${why}` }]);
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) throw refuse("there is no such file");
  if (!found.isFile()) throw refuse("this is not a file");
  if (found.size > FILE_BYTES_MAX)
    throw refuse(`this one has ${shownBytes(found.size)}, at most ${shownBytes(FILE_BYTES_MAX)} are read`);
  try {
    return parse(JSON.parse(await readFile(path, "utf8")));
  } catch (thrown) {
    if (thrown instanceof SyntaxError) throw refuse(`this is not JSON: ${thrown.message.split("\n")[0]}`);
    if (thrown instanceof PlacementError) throw refuse(thrown.message);
    throw thrown;
  }
}

/** The sizes as written; throws UsageError naming every wrong one. */
function readShape(flags: RawFlags, model: { readonly layers: number; readonly experts: number }): PlanShape {
  const text = (field: keyof PlanShape): string => textFlag(flags, field) ?? "";
  const size = (field: keyof PlanShape): number => (/^\d{1,15}$/.test(text(field)) ? Number(text(field)) : Number.NaN);
  const shape = { slots: size("slots"), shards: size("shards"), groups: size("groups"), nodes: size("nodes") };
  const problems = shapeProblems(shape, model.layers, model.experts);
  if (problems.length > 0)
    throw new UsageError(problems.map(({ field, allowed }) => ({ flag: `--${field}`, value: text(field), allowed })));
  return shape;
}

function layerJson({ shards, loads, copies, equal, credits, moves }: LayerPlan): object {
  return {
    slotExperts: shards.flat(),
    expertSlots: slotsByExpert(shards, loads.length),
    copies: [...copies],
    shardLoads: [...equal],
    shardLoadsByCredits: [...credits],
    balancedness: balancedness([equal]),
    moves,
  };
}

/** A line a layer; where there are few shards in all, a line for each of them below. */
function layerLines(plan: PlacementPlan): string[] {
  const { layers, shape } = plan;
  const everyShard = layers.length * shape.shards <= SHARDS_SHOWN_MAX;
  return [
    "layer  balance  heaviest shard      moves  copies",
    ...layers.flatMap((layer, index) => [
      layerLine(layer, index, explainLayer(plan, index)),
      ...(everyShard ? shardLines(layer) : []),
    ]),
  ];
}

function layerLine({ equal, moves }: LayerPlan, index: number, words: string): string {
  const most = Math.max(...equal);
  const heaviest = `${equal.indexOf(most)} (${shownLoad(most)})`;
  const balance = balancedness([equal]).toFixed(4);
  return `${String(index).padEnd(5)}  ${balance.padEnd(7)}  ${heaviest.padEnd(18)}  ${String(moves.length).padEnd(5)}  ${words}`;
}

function shardLines({ shards, equal }: LayerPlan): string[] {
  return shards.map(
    (experts, shard) =>
      `  shard ${String(shard).padEnd(4)} ${shownLoad(equal[shard] ?? 0).padStart(10)}  experts ${experts.join(" ")}`,
  );
}

function shownLoad(load: number): string {
  return String(Number(load.toPrecision(6)));
}
