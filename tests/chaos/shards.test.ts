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
const FAULTS = 8;
/** Who submit one clip after the other. */
const CLIENTS = 3;
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

/** The finished clip of a kind. */
async function makeClip(kind: number): Promise<Facts> {
  const flags = ["--seed", `${kind}`, "--size", "256x256", "--seconds", "0.5", "--steps", "30"];
  const { name } = await ask("submit", `clip ${kind}`, ...flags);
  return ask("watch", name);
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

test(`${CLIPS} clips and more are finished, each the very same, whatever happens to shards and router`, async () => {
  console.log(`MOEVIE_CHAOS_SEED=${SEED}`);
  const calm = new Map<number, string>();
  for (let kind = 0; kind < KINDS; kind++) calm.set(kind, (await makeClip(kind)).artefact?.sha256 ?? "none");
  expect(new Set(calm.values()).size).toBe(KINDS);
  const startMs = performance.now();
  await Promise.all(Array.from({ length: CLIENTS }, (_, client) => makeClip(client % KINDS)));
  const calmMs = (performance.now() - startMs) / CLIENTS;
  const random = uniform(SEED);
  const faults: string[] = [];
  const made: (readonly [kind: number, Facts])[] = [];
  const wildMs = performance.now();
  const client = async (): Promise<void> => {
    for (let clip = 0; made.length < CLIPS || faults.length < FAULTS; clip++)
      made.push([clip % KINDS, await makeClip(clip % KINDS)]);
  };
  const chaos = async (): Promise<void> => {
    while (faults.length < FAULTS) {
      await pause(CALM_MS[0] + random.next().value * (CALM_MS[1] - CALM_MS[0]));
      faults.push(await strike(random));
    }
  };
  await Promise.all([chaos(), ...Array.from({ length: CLIENTS }, client)]);
  const addedMs = (performance.now() - wildMs - calmMs * made.length) / FAULTS;
  console.log(`${made.length} clips, ${FAULTS} faults: ${faults.join(", ")}`);
  console.log(`${Math.round(calmMs)} ms a clip when calm; ${Math.round(addedMs)} ms more for each fault`);
  for (const [kind, { name, state, artefact }] of made)
    expect([name, state, artefact?.sha256]).toEqual([name, "completed", calm.get(kind)]);
  server.child.kill("SIGINT");
  await server.finished;
  await session.untilNothingLeft();
}, 400_000);
