// A cluster whose shards and router are killed, stopped and started again at random while it makes clips: every clip is finished once, and is
// the very clip of a calm run. The seed is printed; MOEVIE_CHAOS_SEED repeats the faults (when they strike depends on the machine).
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { philox4x32 } from "@moevie/diffusion";
import { importStarter } from "@moevie/importer";
import { writeTinyModel } from "../parity/tiny.ts";
import { CliSession, type RunningCommand } from "../e2e/cli-session.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";

const SHARDS = 4;
const CLIPS = 20;
const KINDS = 5;
const SEED = Number(process.env["MOEVIE_CHAOS_SEED"] ?? Date.now() % 2 ** 31);
/** Between two faults, and how long a stopped process stays stopped. */
const [CALM_MS, STOPPED_MS] = [
  [300, 1500],
  [200, 2500],
] as const;

interface Facts {
  readonly name: string;
  readonly state: string;
  readonly attempt: number;
  readonly artefact: { readonly sha256: string } | null;
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-chaos-"));
let session: CliSession;
let server: RunningCommand;
let grpc = "";

/** Numbers from 0 to 1 by the seed. */
function* uniform(seed: number): Generator<number, never> {
  const words = new Uint32Array(4);
  for (let counter = 0; ; counter++) {
    philox4x32([counter, 0, 0, 0], [seed, 1], words);
    for (const word of words) yield word / 2 ** 32;
  }
}

/** Every expert on two shards, so that none is lost with one. */
async function writePlacement(bundle: string): Promise<string> {
  const { layers, experts } = tokenDenoiser(await openBundle(bundle));
  const shards = Array.from({ length: SHARDS }, (_, shard) => ({
    slots: Array.from(
      { length: layers * experts },
      (_slot, at) => [Math.floor(at / experts), at % experts] as const,
    ).filter(([layer, expert]) => [shard, (shard + 1) % SHARDS].includes((layer + expert) % SHARDS)),
  }));
  const file = join(scratch, "placement.json");
  writeFileSync(file, JSON.stringify({ epoch: 1, shards }));
  return file;
}

beforeAll(async () => {
  writeTinyModel(join(scratch, "model"));
  const bundle = join(scratch, "bundle");
  await importStarter(join(scratch, "model"), bundle);
  session = new CliSession({ MOEVIE_PLACEMENT_FILE: await writePlacement(bundle) });
  const data = join(session.folder, "jobs");
  const ports = ["--grpc-port", "0", "--http-port", "0"];
  server = session.start("serve", "--model", bundle, "--shards", `${SHARDS}`, ...ports, "--data", data, "--json");
  await server.says(/^\{"grpc".*\}$/m);
  ({ grpc } = JSON.parse(server.stdout) as { grpc: string });
});
afterAll(() => {
  session.close();
  rmSync(scratch, { recursive: true, force: true });
});

async function ask(...args: string[]): Promise<Facts> {
  const { stdout, stderr } = await session.run(...args, "--server", grpc, "--json");
  if (stdout === "") throw new Error(stderr);
  return JSON.parse(stdout) as Facts;
}

/** Names of as many jobs, of kind after kind. */
async function submitAll(count: number): Promise<string[]> {
  const names: string[] = [];
  for (let clip = 0; clip < count; clip++) {
    const kind = `${clip % KINDS}`;
    const flags = ["--seed", kind, "--size", "256x256", "--seconds", "0.5", "--steps", "30"];
    names.push((await ask("submit", `clip ${kind}`, ...flags)).name);
  }
  return names;
}

async function watchAll(names: readonly string[]): Promise<Facts[]> {
  const made: Facts[] = [];
  for (const name of names) made.push(await ask("watch", name));
  return made;
}

/** One fault; resolves when the process runs again. */
async function strike(random: Generator<number, never>): Promise<string> {
  const victims = [...Array.from({ length: SHARDS }, (_, shard) => `expert-shard-${shard}`), "router"];
  const victim = victims[Math.floor(random.next().value * victims.length)]!;
  const kills = random.next().value < 0.5;
  const stoppedMs = STOPPED_MS[0] + random.next().value * (STOPPED_MS[1] - STOPPED_MS[0]);
  const backBefore = server.stderr.split(`${victim} is back`).length;
  const pid = session.pidOf(victim);
  if (kills) {
    process.kill(pid, "SIGKILL");
    while (server.stderr.split(`${victim} is back`).length === backBefore) await pause(50);
    return `${victim} killed`;
  }
  process.kill(pid, "SIGSTOP");
  await pause(stoppedMs);
  process.kill(pid, "SIGCONT");
  return `${victim} stopped for ${Math.round(stoppedMs)} ms`;
}

test(`${CLIPS} clips are finished, each once and the very same, whatever happens to shards and router`, async () => {
  console.log(`MOEVIE_CHAOS_SEED=${SEED}`);
  const calm = (await watchAll(await submitAll(KINDS))).map(({ artefact }) => artefact?.sha256 ?? "none");
  const startMs = performance.now();
  await watchAll(await submitAll(KINDS));
  const calmMs = (performance.now() - startMs) / KINDS;
  const random = uniform(SEED);
  const faults: string[] = [];
  const wildMs = performance.now();
  const names = await submitAll(CLIPS);
  let open = true;
  const chaos = (async () => {
    while (open) {
      await pause(CALM_MS[0] + random.next().value * (CALM_MS[1] - CALM_MS[0]));
      if (open) faults.push(await strike(random));
    }
  })();
  const made = await watchAll(names);
  open = false;
  await chaos;
  const addedMs = performance.now() - wildMs - calmMs * CLIPS;
  console.log(`${faults.length} faults: ${faults.join(", ")}`);
  console.log(
    `${Math.round(calmMs)} ms a clip when calm; ${Math.round(addedMs / faults.length)} ms more for each fault`,
  );
  expect(faults.length).toBeGreaterThan(3);
  for (const [clip, { state, artefact }] of made.entries())
    expect([clip, state, artefact?.sha256]).toEqual([clip, "completed", calm[clip % KINDS]]);
  expect(new Set(calm).size).toBe(KINDS);
  server.child.kill("SIGINT");
  await server.finished;
  await session.untilNothingLeft();
}, 400_000);
