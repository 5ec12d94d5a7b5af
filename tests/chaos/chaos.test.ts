// Processes killed and stopped at random while clips are made: every accepted job is finished, once, with the very clip of a calm run, and
// nothing is left behind. The seed is printed; MOEVIE_CHAOS_SEED repeats the faults (when they strike depends on the machine).
import { expect, test } from "vitest";
import { SERVICE_NAMES, SHARD_NAMES } from "./chaos-cluster.ts";
import { shownCosts } from "./fault-cost.ts";
import { runChaos } from "./run-chaos.ts";

const SEED = Number(process.env["MOEVIE_CHAOS_SEED"] ?? Date.now() % 2 ** 31);

test.each([
  { what: "shards with copies and the router", store: "sqlite", victims: [...SHARD_NAMES, "router"], copies: true },
  { what: "every process, jobs in SQLite", store: "sqlite", victims: SERVICE_NAMES, copies: false },
  { what: "every process and the server, jobs in NATS", store: "nats", victims: SERVICE_NAMES, copies: false },
] as const)(
  "$what",
  async ({ what, store, victims, copies }) => {
    const faultCount = copies ? 8 : 20;
    const told = `${what}, MOEVIE_CHAOS_SEED=${SEED}`;
    const report = await runChaos({ store, victims, copies, seed: SEED, faultCount, clipsMin: 20 }).catch(
      (thrown: unknown) => {
        throw new Error(`${told}: ${String(thrown)}`, { cause: thrown });
      },
    );
    const { faults, clips, wrong, swept, jobs, calmMs, costs } = report;
    // One line, shown by `./moevie test` also when all passes.
    console.log(
      `figures: chaos, ${told}: ${clips} clips of ${calmMs} ms when calm, swept ${swept.length}; median/worst cost: ${shownCosts(costs)}`,
    );
    console.log(`${faults.join(", ")}; swept: ${swept.join(", ")}`);
    expect(wrong).toEqual([]);
    expect(jobs.stored).toBe(jobs.asked);
  },
  600_000,
);
