// What befalls all processes at once while clips are made: the wall clock jumps by an hour both ways, the NATS server is gone for a minute.
// Every accepted job ends once, with the very clip of a calm run. Side by side: they mostly wait.
import { expect, test } from "vitest";
import { limit } from "@moevie/contracts";
import { fault, type Outage } from "./chaos-cluster.ts";
import { runChaos } from "./run-chaos.ts";

/** Hours that the clock is off, one after the other: forward, back, further back, forward. */
const OFF_HOURS = [1, 0, -1, 0];
const AWAY_MS = 60_000;
/** Beside the calls to the server that a submit waits for: processes that take turns on few cores. */
const ANSWER_SLACK_MS = 5000;
const TEST_MS_MAX = 600_000;
const CALM = { seed: 1, victims: [], copies: false };

test.concurrent.each(["sqlite", "nats"] as const)(
  "the wall clock jumps an hour forward and back in mid-job, jobs in %s: no lease is lost by it, no job runs twice",
  async (store) => {
    const report = await runChaos({
      ...CALM,
      store,
      shiftedClock: true,
      faultCount: OFF_HOURS.length,
      clipsMin: 8,
      strike: (cluster, index) => cluster.jump(OFF_HOURS[index] ?? 0),
    });
    console.log(`${report.clips} clips in ${store}: ${report.faults.join(", ")}`);
    expect(report.wrong).toEqual([]);
    expect(report.jobs.stored).toBe(report.jobs.asked);
    expect(report.attemptsMax).toBe(1);
  },
  TEST_MS_MAX,
);

test.concurrent(
  "the NATS server is gone for a minute: submits are refused in seconds and say why, then every job ends once",
  async () => {
    let outage: Outage = { errors: [], slowestMs: Infinity };
    const report = await runChaos({
      ...CALM,
      store: "nats",
      faultCount: 1,
      clipsMin: 8,
      strike: async (cluster) => {
        await cluster.calm();
        const atMs = performance.now();
        outage = await cluster.outage(AWAY_MS);
        return fault(atMs, "nats-server away", " for a minute");
      },
    });
    const texts = [...new Set(outage.errors.map(({ reason, message }) => `${reason}: ${message}`))];
    console.log(
      `${report.clips} clips, most attempts ${report.attemptsMax}; ${outage.errors.length} submits refused, the slowest after ${Math.round(outage.slowestMs)} ms: ${texts.join("; ")}`,
    );
    expect(report.wrong).toEqual([]);
    expect(report.jobs.stored).toBe(report.jobs.asked);
    expect(texts).toEqual(["PEER_UNAVAILABLE: The NATS server does not answer."]);
    expect(outage.slowestMs).toBeLessThan(2 * limit("natsCallMsMax") + ANSWER_SLACK_MS);
  },
  TEST_MS_MAX,
);
