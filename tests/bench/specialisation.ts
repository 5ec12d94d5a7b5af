// Which experts of the starter model serve which part of a job's steps, which rows of the picture and which subjects: real prompts, every
// step of the standard variant, one graph in this process. Writes docs/specialisation.svg and prints the tables of the page beside it.
import { mkdtempSync, rmSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { openBundle } from "@moevie/bundle";
import { createSampler, noiseSchedule, seededNoise } from "@moevie/diffusion";
import { importStarter } from "@moevie/importer";
import { BundleSessions, i64, runMonolith } from "../parity/sessions.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";
import { ROOT } from "./support/processes.ts";

const PROMPTS: Readonly<Record<string, readonly string[]>> = {
  ball: ["a green ball bouncing on the street in the snow", "雨中的海滩，一个红色的球静止不动"],
  dog: ["a golden dog runs along the beach at sunset", "傍晚的街道上，一只黑色的狗从左到右跑过"],
  cyclist: ["a pink cyclist on the street by day, from right to left", "一个人骑着红色自行车穿过雨中的街道"],
  boat: ["a blue boat on the sea at sunset, from left to right", "夜晚的海面上，一艘白色的小船从右到左"],
  bird: ["a white bird flies over the sea by day, from left to right", "一只粉色的鸟从右到左飞过海滩，白天"],
  car: ["a red car drives through the city at night in the rain", "日落时分，一辆绿色的汽车停在街道上"],
  star: ["a purple star over a meadow by day", "金色的星星停在夜空下的城市"],
};
const PHASES = ["steps from 750", "steps from 500", "steps from 250", "steps from 0"];
const CELL = 18;
const LABEL = 120;
const GAP = 26;

/** Counts by [group][layer][expert]. */
type Counts = Map<string, Float64Array[]>;

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-specialisation-"));
process.chdir("/");
await importStarter(join(ROOT, "packages/starter-model/weights"), join(scratch, "bundle"));
const bundle = await openBundle(join(scratch, "bundle"));
const sessions = new BundleSessions(bundle);
const { manifest } = bundle;
const { layers, experts, topK } = tokenDenoiser(bundle);
const shape = [
  manifest.latent.channels,
  (manifest.modelFrames - 1) / manifest.latent.temporalStride + 1,
  manifest.height / manifest.latent.spatialStride,
  manifest.width / manifest.latent.spatialStride,
] as const;
const [, patchRows, patchColumns] = manifest.denoiser.patch as [number, number, number];
const [tokenRows, tokenColumns] = [shape[2] / patchRows, shape[3] / patchColumns];
const empty = (): Float64Array[] => Array.from({ length: layers }, () => new Float64Array(experts));

/** Rows [maxTokens, width] of a text, zeros behind it. */
async function textRows(text: string): Promise<{ shape: number[]; data: Float32Array }> {
  const { maxTokens, width, tokenizer } = manifest.text;
  const { ids } = new Tokenizer(JSON.parse(readFileSync(bundle.path(tokenizer), "utf8")) as object, {}).encode(text);
  const mask = ids.map(() => 1);
  const { rows } = await sessions.run("text-encoder", {
    ids: i64([1, ids.length], ids),
    mask: i64([1, ids.length], mask),
  });
  const data = new Float32Array(maxTokens * width);
  data.set(rows!.data as Float32Array);
  return { shape: [1, maxTokens, width], data };
}

function add(counts: Counts, group: string, layer: number, expert: number): void {
  const found = counts.get(group) ?? empty();
  counts.set(group, found);
  found[layer]![expert]!++;
}

/** Counts every choice of one clip's steps. The conditional branch alone steers: what counts is which experts it asks. */
async function countClip(prompt: string, seed: number, subject: string, tables: Record<string, Counts>): Promise<void> {
  const rows = await textRows(prompt);
  const { steps } = manifest.variants.standard;
  const schedule = noiseSchedule({ steps, shift: manifest.schedule.shift, grid: "diffusers" });
  const sampler = createSampler("unipc", schedule);
  const latent = seededNoise(seed, [...shape]);
  for (const [step, timestep] of schedule.timesteps.entries()) {
    const z = { shape: [1, ...shape], data: latent };
    const { velocity, ids } = await runMonolith(sessions, z, Float32Array.of(timestep), rows);
    const phase = PHASES[Math.min(3, Math.floor((1000 - timestep) / 250))]!;
    for (const [layer, chosen] of ids.entries())
      for (const [entry, expert] of (chosen.data as Int32Array).entries()) {
        const token = Math.floor(entry / topK);
        const row = Math.floor((token % (tokenRows * tokenColumns)) / tokenColumns);
        add(tables["phase"]!, phase, layer, expert);
        add(tables["row"]!, `row ${row + 1} of ${tokenRows}`, layer, expert);
        add(tables["subject"]!, subject, layer, expert);
      }
    sampler.step(step, latent, velocity.data as Float32Array);
  }
}

const sharesOf = (counts: Float64Array): number[] => {
  const sum = counts.reduce((total, count) => total + count, 0);
  return Array.from(counts, (count) => count / sum);
};

/** Heat maps, one a layer: a column an expert, a line a group; the darker, the larger its share. */
function picture(tables: Record<string, Counts>): string {
  const lines = Object.values(tables).reduce((sum, counts) => sum + counts.size + 1, 0);
  const [width, height] = [LABEL + 2 * (experts * CELL + GAP), (Math.ceil(layers / 2) * (lines + 2) + 1) * CELL];
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
  ];
  for (let layer = 0; layer < layers; layer++) {
    const left = LABEL + (layer % 2) * (experts * CELL + GAP);
    let y = (Math.floor(layer / 2) * (lines + 2) + 1) * CELL;
    out.push(`<text x="${left}" y="${y}" font-weight="bold">layer ${layer}, experts 0 to ${experts - 1}</text>`);
    y += CELL / 2;
    for (const counts of Object.values(tables)) {
      const sorted = [...counts].toSorted(([a], [b]) => order(a, b));
      const most = Math.max(...sorted.flatMap(([, by]) => sharesOf(by[layer]!)));
      for (const [group, by] of sorted) {
        if (layer % 2 === 0) out.push(`<text x="${LABEL - 6}" y="${y + CELL - 5}" text-anchor="end">${group}</text>`);
        for (const [expert, share] of sharesOf(by[layer]!).entries()) {
          const light = Math.round(96 - 76 * (share / most));
          const at = `x="${left + expert * CELL}" y="${y}"`;
          out.push(`<rect ${at} width="${CELL - 1}" height="${CELL - 1}" fill="hsl(215,70%,${light}%)"/>`);
        }
        y += CELL;
      }
      y += CELL;
    }
  }
  return `${out.join("\n")}\n</svg>\n`;
}

/** Phases from the noisiest, rows from the top, subjects by name. */
function order(a: string, b: string): number {
  return PHASES.indexOf(a) - PHASES.indexOf(b) || (a < b ? -1 : 1);
}

/** For each group: the expert whose share there is largest beside its share everywhere. */
function tableLines(title: string, counts: Counts): string[] {
  const all = empty();
  for (const by of counts.values())
    by.forEach((row, layer) => row.forEach((count, expert) => (all[layer]![expert]! += count)));
  const cell = (by: Float64Array, layer: number): string => {
    const [here, everywhere] = [sharesOf(by), sharesOf(all[layer]!)];
    // Of experts that are hardly used a share says little.
    const lift = here.map((share, expert) => (share < 0.02 ? 0 : share / Math.max(1e-9, everywhere[expert]!)));
    const best = lift.indexOf(Math.max(...lift));
    return `${best}: ${(100 * here[best]!).toFixed(0)} % (${lift[best]!.toFixed(1)} x)`;
  };
  const head = Array.from({ length: layers }, (_, layer) => ` layer ${layer} |`).join("");
  return [
    `| ${title} |${head}`,
    `| --- |${" --- |".repeat(layers)}`,
    ...[...counts]
      .toSorted(([a], [b]) => order(a, b))
      .map(([group, by]) => `| ${group} | ${by.map((row, layer) => cell(row, layer)).join(" | ")} |`),
    "",
  ];
}

try {
  const tables: Record<string, Counts> = { phase: new Map(), row: new Map(), subject: new Map() };
  let seed = 1;
  for (const [subject, prompts] of Object.entries(PROMPTS))
    for (const prompt of prompts) await countClip(prompt, seed++, subject, tables);
  writeFileSync(join(ROOT, "docs/specialisation.svg"), picture(tables));
  for (const [title, counts] of Object.entries(tables)) console.log(tableLines(title, counts).join("\n"));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
process.exit();
