// How well clips follow their prompts: prompts of combinations never trained on, in both languages, through a real cluster to MP4s,
// which a judge that knows only drawn clips looks at. Resumable: every judged clip is kept under the digests of bundle and judge, and a run goes
// on where the last one was. MOEVIE_ADHERENCE_PROMPTS says how many prompts a language (500 when not set).
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle } from "@moevie/bundle";
import { VideoClient } from "@moevie/client";
import { importStarter } from "@moevie/importer";
import {
  LANGUAGES,
  judgedClip,
  type Chain,
  type ClipOrder,
  type JudgedClip,
  type Language,
  type Quality,
} from "./adherence/clips.ts";
import { Judge } from "./adherence/judge.ts";
import { shareOf, type Share } from "./adherence/shares.ts";
import { startCluster } from "./support/cluster.ts";
import { CACHE } from "../support/cache.ts";
import { ProcessGroup, ROOT, showTarget } from "./support/processes.ts";

const FOLDER = join(import.meta.dirname, "adherence");
const PROMPTS = Number(process.env["MOEVIE_ADHERENCE_PROMPTS"] ?? 500);
/** Of them, through the whole chain: half of it in each language. */
const WHOLE_CHAIN = 50;
const SIDE_BY_SIDE = 4;
const AIMS = { attribute: 0.9, mean: 0.95, chainPoints: 2, draftPoints: 5, sideLevels: 2 };

interface PromptFile {
  readonly attributes: Readonly<Record<string, readonly string[]>>;
  /** What the judge itself reaches on drawn clips. */
  readonly judge: Readonly<Record<string, number>>;
  readonly prompts: readonly ({ readonly labels: readonly number[] } & Readonly<Record<Language, string>>)[];
}
interface Work {
  readonly index: number;
  readonly language: Language;
  readonly quality: Quality;
  readonly chain: Chain;
}
type Result = Work & JudgedClip;

const file = JSON.parse(readFileSync(join(FOLDER, "prompts.json"), "utf8")) as PromptFile;
const names = Object.keys(file.attributes);

function workOf(qualities: readonly Quality[]): Work[] {
  const all: Work[] = [];
  for (let index = 0; index < Math.min(PROMPTS, file.prompts.length); index++)
    for (const language of LANGUAGES) {
      for (const quality of qualities) all.push({ index, language, quality, chain: "model" });
      if (index < WHOLE_CHAIN / LANGUAGES.length) all.push({ index, language, quality: "standard", chain: "720p" });
    }
  return all;
}

const keyOf = ({ index, language, quality, chain }: Work): string => [index, language, quality, chain].join(" ");

/** Makes and judges what is not in `kept` yet. */
async function judgeAll(
  work: readonly Work[],
  kept: Map<string, Result>,
  state: string,
  client: VideoClient,
): Promise<void> {
  const judge = new Judge(
    join(FOLDER, "judge.safetensors"),
    names.map((name) => file.attributes[name]!.length),
  );
  const missing = work.filter((one) => !kept.has(keyOf(one)));
  const waiting = missing.values();
  let done = work.length - missing.length;
  const run = async (): Promise<void> => {
    for (const one of waiting) {
      const order: ClipOrder = { ...one, prompt: file.prompts[one.index]![one.language], seed: one.index };
      const result: Result = { ...one, ...(await judgedClip(client, judge, order)) };
      kept.set(keyOf(one), result);
      appendFileSync(state, `${JSON.stringify(result)}\n`);
      if (++done % 50 === 0) console.log(`  ${done} of ${work.length} clips`);
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, run));
}

interface Row {
  readonly attributes: readonly Share[];
  readonly sound: Share;
  readonly mean: number;
}

/** `shift`: the clips are held against the scene of another prompt. */
function rowOf(results: readonly Result[], shift = 0): Row {
  const labels = results.map((_, at) => file.prompts[results[(at + shift) % results.length]!.index]!.labels);
  const hits = (attribute: number): boolean[] =>
    results.map(({ seen }, at) => seen[attribute] === labels[at]![attribute]);
  const attributes = names.map((_, attribute) => shareOf(hits(attribute)));
  const right = hits(0);
  return {
    attributes,
    sound: shareOf(results.map(({ sound }, at) => sound && right[at]!)),
    mean: attributes.reduce((sum, { share }) => sum + share, 0) / attributes.length,
  };
}

function print(name: string, { attributes, sound, mean }: Row, bounds = true): void {
  const cell = ({ share, low, high }: Share): string =>
    `${share.toFixed(3)}${bounds ? ` (${low.toFixed(2)}-${high.toFixed(2)})` : ""}`.padEnd(19);
  console.log(`  ${name.padEnd(28)}${[...attributes, sound].map(cell).join("")}${mean.toFixed(3)}`);
}

function report(results: readonly Result[], qualities: readonly Quality[]): void {
  const of = (quality: Quality, chain: Chain, language?: Language): Result[] =>
    results.filter(
      (one) => one.quality === quality && one.chain === chain && (language ?? one.language) === one.language,
    );
  console.log(`\nthe judge itself, on drawn clips: ${JSON.stringify(file.judge)}`);
  console.log(`  ${"".padEnd(28)}${[...names, "right and sound"].map((name) => name.padEnd(19)).join("")}mean`);
  for (const quality of qualities)
    for (const language of LANGUAGES) print(`${quality}, ${language}`, rowOf(of(quality, "model", language)));
  for (const language of LANGUAGES) print(`shuffled, ${language}`, rowOf(of("standard", "model", language), 1), false);
  const guess = names.map((name) => 1 / file.attributes[name]!.length);
  console.log(`  ${"guess".padEnd(28)}${guess.map((share) => share.toFixed(3).padEnd(19)).join("")}`);
  const standard = rowOf(of("standard", "model"));
  const whole = of("standard", "720p");
  const same = of("standard", "model").filter((one) =>
    whole.some((other) => keyOf({ ...other, chain: "model" }) === keyOf(one)),
  );
  print(`the same ${whole.length}, model's size`, rowOf(same));
  print(`the same ${whole.length}, 1280x720`, rowOf(whole));
  const still = of("standard", "model").filter(({ index }) => isStill(index));
  const levels = still.reduce((sum, { sideChange }) => sum + sideChange, 0) / still.length;
  const worst = Math.min(...standard.attributes.map(({ share }) => share));
  showTarget("the worst attribute", worst * 100, "%", "at least", AIMS.attribute * 100);
  showTarget("their mean", standard.mean * 100, "%", "at least", AIMS.mean * 100);
  showTarget(
    "1280x720 from the model's size",
    Math.abs(rowOf(whole).mean - rowOf(same).mean) * 100,
    "points",
    "at most",
    AIMS.chainPoints,
  );
  if (qualities.includes("draft"))
    showTarget(
      "draft below standard",
      (standard.mean - rowOf(of("draft", "model")).mean) * 100,
      "points",
      "at most",
      AIMS.draftPoints,
    );
  showTarget(`change of still sides (${still.length} clips)`, levels, "levels", "at most", AIMS.sideLevels);
}

/** Nothing moves beside the subject: it stays, and nothing falls. */
function isStill(index: number): boolean {
  const label = (name: string): string => file.attributes[name]![file.prompts[index]!.labels[names.indexOf(name)]!]!;
  return label("motion") === "stays" && label("weather") === "clear";
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-adherence-"));
const group = new ProcessGroup();
try {
  const bundle = join(scratch, "bundle");
  await importStarter(join(ROOT, "packages/starter-model/weights"), bundle);
  const { digest, manifest } = await openBundle(bundle);
  const qualities = Object.keys(manifest.variants) as Quality[];
  mkdirSync(join(CACHE, "bench"), { recursive: true });
  const judged = createHash("sha256")
    .update(readFileSync(join(FOLDER, "judge.safetensors")))
    .digest("hex");
  const state = join(CACHE, "bench", `adherence-${digest.slice(0, 12)}-${judged.slice(0, 12)}.jsonl`);
  const lines = existsSync(state)
    ? readFileSync(state, "utf8")
        .split("\n")
        .filter((line) => line.endsWith("}"))
    : [];
  const kept = new Map(lines.map((line) => JSON.parse(line) as Result).map((result) => [keyOf(result), result]));
  const work = workOf(qualities);
  console.log(`${work.length} clips, ${work.filter((one) => kept.has(keyOf(one))).length} of them judged before`);
  await startCluster(group, { bundle, data: join(scratch, "data"), jobsRunning: SIDE_BY_SIDE });
  const client = new VideoClient(group.address("gateway"));
  await judgeAll(work, kept, state, client);
  client.close();
  report(
    work.map((one) => kept.get(keyOf(one))!),
    qualities,
  );
} finally {
  await group.close();
  rmSync(scratch, { recursive: true, force: true });
}
