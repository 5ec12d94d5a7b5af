// Processes killed and stopped at random while clips are made: every accepted job is finished, once, with the very clip of a calm run, and
// nothing is left behind. The seed is printed; MOEVIE_CHAOS_SEED repeats the faults (when they strike depends on the machine).
import { expect, test } from "vitest";
import { SERVICE_NAMES, SHARD_NAMES } from "./chaos-cluster.ts";
import { runChaos } from "./run-chaos.ts";

const SEED = Number(process.env["MOEVIE_CHAOS_SEED"] ?? Date.now() % 2 ** 31);

test.each([
  { what: "shards with copies and the router", store: "sqlite", victims: [...SHARD_NAMES, "router"], copies: true },
  { what: "every process, jobs in SQLite", store: "sqlite", victims: SERVICE_NAMES, copies: false },
  { what: "every process and the server, jobs in NATS", store: "nats", victims: SERVICE_NAMES, copies: false },
] as const)(
  "$what",
  async ({ store, victims, copies }) => {
    console.log(`MOEVIE_CHAOS_SEED=${SEED}`);
    const faultCount = copies ? 8 : 20;
    const report = await runChaos({ store, victims, copies, seed: SEED, faultCount, clipsMin: 20 });
    const { faults, clips, wrong, jobs, calmMsPerClip, addedMsPerFault } = report;
    console.log(`${clips} clips, ${faults.length} faults: ${faults.join(", ")}`);
    console.log(
      `${Math.round(calmMsPerClip)} ms a clip when calm; ${Math.round(addedMsPerFault)} ms more for each fault`,
    );
    expect(wrong).toEqual([]);
    expect(jobs.stored).toBe(jobs.asked);
  },
  600_000,
);
