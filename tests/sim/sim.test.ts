// Schedules of a simulated cluster keep every promise on both stores, and each planted fault is found. `moevie sim` plays more, or one again.
import { describe, expect, test } from "vitest";
import { STORE_KINDS } from "./ground.ts";
import { MUTATIONS } from "./mutations.ts";
import { play } from "./play.ts";
import { runSchedule } from "./run-schedule.ts";
import { runSchedules } from "./run-schedules.ts";

const SCHEDULES = { sqlite: 200, nats: 400 } as const;
/** More of each store, or fewer. */
const ASKED = process.env["MOEVIE_SIM_SCHEDULES"];
/** Of the first schedule: the same each time, so that a change is what makes the difference. */
const SEED = Number(process.env["MOEVIE_SIM_SEED"] ?? 1);
const FAULT_SEEDS = 150;

describe.each(STORE_KINDS)("on the %s store", (store) => {
  test(
    "no accepted job is lost, none completes twice, no late owner's write counts, every job ends with the clip of a calm run",
    async () => {
      const schedules = Number(ASKED ?? SCHEDULES[store]);
      const { broken, violations = [], ...report } = await play({ store, schedules, seed: SEED });
      console.log(`from seed ${SEED}: ${JSON.stringify(report)}`);
      expect(violations, `again: ./moevie sim --store ${store} --schedules 1 --seed ${broken}`).toEqual([]);
    },
    20 * 60_000,
  );

  test("a seed is a schedule: the same things happen at the same times", async () => {
    const one = await runSchedule({ store, seed: 3, traced: true });
    const other = await runSchedule({ store, seed: 3, traced: true });
    expect(other.trace).toEqual(one.trace);
    expect(one.trace.length).toBeGreaterThan(20);
  });

  const faults = MUTATIONS.filter(({ only }) => only === undefined || only === store);
  test.each(faults)("a planted fault is found: $name", async (mutation) => {
    const { broken, violations = [] } = await runSchedules({ store, schedules: FAULT_SEEDS, seed: 1, mutation });
    console.log(`at seed ${broken}: ${violations[0]}`);
    expect(broken).toBeDefined();
  });
});
