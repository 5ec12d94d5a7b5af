// Evaluations of several jobs as one batch: bit for bit what each gives alone, whoever shares it, and whatever becomes of the others.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openBundle, type Bundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DenoiseCluster, type DenoiseCaller } from "./denoise-cluster.ts";
import type { Dense } from "./safetensors-file.ts";
import { seeded, writeTinyModel } from "./tiny.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-batches-"));
const bundleFolder = join(folder, "bundle");
const STEPS = 6;
let bundle: Bundle;
let cluster: DenoiseCluster;

interface Job {
  readonly latents: readonly Dense[];
  readonly contexts: readonly [Dense, Dense];
}

/** As many tokens as `rows` of the latent make: two latent rows, and as wide as it takes. */
function jobs(count: number, columns: number): Job[] {
  const random = seeded(columns);
  const dense = (shape: number[]): Dense => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => 2 * random()),
  });
  const { latent, text } = bundle.manifest;
  return Array.from({ length: count }, () => ({
    latents: Array.from({ length: STEPS }, () => dense([latent.channels, 1, 2, columns])),
    contexts: [dense([text.maxTokens, text.width]), dense([text.maxTokens, text.width])],
  }));
}

beforeAll(async () => {
  writeTinyModel(join(folder, "source"), { layers: 3, experts: 8, frames: 9 });
  await importStarter(join(folder, "source"), bundleFolder);
  bundle = await openBundle(bundleFolder);
  cluster = await DenoiseCluster.start({ bundleFolder, shards: 2 });
});
afterAll(async () => {
  await cluster.close();
  rmSync(folder, { recursive: true, force: true });
});

/** All steps of a job, both branches side by side on a stream each. Timesteps differ from job to job. */
async function run({ latents, contexts }: Job, at: number, callers: readonly DenoiseCaller[]): Promise<Float32Array[]> {
  const velocities: Float32Array[] = [];
  for (const [step, latent] of latents.entries()) {
    const branches = ["BRANCH_CONDITIONAL", "BRANCH_UNCONDITIONAL"] as const;
    const timestep = 999 - 100 * step - at;
    const both = branches.map((branch, index) =>
      callers[index]!.evaluate(latent, timestep, contexts[index]!, 0, "", branch),
    );
    velocities.push(...(await Promise.all(both)).map(({ velocity }) => velocity));
  }
  return velocities;
}

async function runAll(all: readonly Job[]): Promise<Float32Array[][]> {
  const callers = all.map(() => [cluster.caller(bundle), cluster.caller(bundle)]);
  try {
    return await Promise.all(all.map((job, at) => run(job, at, callers[at]!)));
  } finally {
    for (const caller of callers.flat()) caller.close();
  }
}

async function evaluations(company: string): Promise<number> {
  const line = new RegExp(`^moevie_router_evaluations_total\\{.*company="${company}".*\\} (\\d+)`, "m");
  return Number(line.exec(await cluster.metrics())?.[1] ?? 0);
}

test.each([
  ["few rows", 4, "branches"],
  ["many rows", 160, "jobs"],
])("%s: each job gets the bits it gets alone", async (_name, columns, company) => {
  const all = jobs(5, columns);
  const alone: Float32Array[][] = [];
  for (const [at, job] of all.entries()) {
    const callers = [cluster.caller(bundle), cluster.caller(bundle)];
    alone.push(await run(job, at, callers));
    for (const caller of callers) caller.close();
  }
  const before = await evaluations(company);
  expect(await runAll(all)).toEqual(alone);
  expect(await evaluations(company)).toBeGreaterThan(before);
});

test("a job that goes away in the midst of a batch takes nobody with it", async () => {
  const all = jobs(4, 160);
  const alone = await runAll(all.slice(0, 3));
  const callers = all.map(() => [cluster.caller(bundle), cluster.caller(bundle)]);
  const last = run(all[3]!, 3, callers[3]!).catch(() => undefined);
  const others = all.slice(0, 3).map((job, at) => run(job, at, callers[at]!));
  setTimeout(() => callers[3]!.forEach((caller) => caller.close()), 15);
  expect(await Promise.all(others)).toEqual(alone);
  await last;
  for (const caller of callers.flat()) caller.close();
});
