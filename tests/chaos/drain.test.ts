// SIGTERM to each service in turn in the middle of clips, on either job store: it stops taking work, ends by itself in its time, is started
// again, and every clip is the one of a calm run, made in one attempt: what was given back was not lost.
import { expect, test } from "vitest";
import { SERVICE_NAMES, SHARD_NAMES } from "./chaos-cluster.ts";
import { shownCosts } from "./fault-cost.ts";
import { runChaos } from "./run-chaos.ts";

/** One shard stands for all. On NATS those that know the job store: to the others it is the same. */
const TOLD = {
  sqlite: SERVICE_NAMES.filter((name) => !SHARD_NAMES.includes(name) || name === SHARD_NAMES[1]),
  nats: ["gateway", "scheduler"],
} as const;

test.each(["sqlite", "nats"] as const)(
  "each service in turn is told to end in mid-clip, jobs in %s: it drains in its time and no clip knows",
  async (store) => {
    const told = TOLD[store];
    const report = await runChaos({
      store,
      seed: 1,
      victims: [],
      copies: false,
      faultCount: told.length,
      clipsMin: told.length,
      strike: (cluster, index) => cluster.terminate(told[index] ?? ""),
    });
    console.log(
      `figures: drain, jobs in ${store}: ${report.faults.join(", ")}; ${report.clips} clips of ${report.calmMs} ms when calm, median/worst cost: ${shownCosts(report.costs)}`,
    );
    expect(report.wrong).toEqual([]);
    expect(report.jobs.stored).toBe(report.jobs.asked);
    expect(report.attemptsMax).toBe(1);
  },
  300_000,
);
