// Floods, one after the other, through the index that a process keeps of the records in NATS: one tenant submits a thousand jobs at once,
// nine others some each. When finished jobs are removed by the bounds, a flood leaves nothing behind. Virtual time; the index is the real one.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { turn } from "@moevie/runtime";
import { SPEC } from "./contract-suite.fixture.ts";
import { JobIndex } from "./job-index.ts";
import type { JobState } from "./job-state.ts";
import { decodeJob, encodeJob, newJob, type StoredJob } from "./nats-record.ts";
import { EQUAL_SHARES, charged, costOf } from "./queue-order.ts";

const FLOODS = 3;
/** In the order of submission. */
const TENANTS = [
  ...Array.from({ length: 1000 }, () => "flooder"),
  ...Array.from({ length: 9 * 20 }, (_, at) => `tenant-${at % 9}`),
];
const JOBS_KEPT = 20;
const TEST_MS_MAX = 300_000;
/** What may be left of a flood: a fiftieth of what its records take. */
const LEFT_KIB_MAX = 64;

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** KiB of the heap after each flood. The first brings code and statements with it: the last is held against the second. */
async function heaps(flood: () => void): Promise<readonly number[]> {
  const kib: number[] = [];
  for (let at = 0; at < FLOODS; at += 1) {
    flood();
    for (let pass = 0; pass < 3; pass += 1) {
      await turn();
      collect();
    }
    kib.push(process.memoryUsage().heapUsed / 1024);
  }
  console.info(`heap after each flood: ${kib.map((size) => `${Math.round(size)} KiB`).join(", ")}`);
  return kib;
}

function expectFlat(sizes: readonly number[], growthMax: number): void {
  const [second = 0, last = Infinity] = [sizes[1], sizes.at(-1)];
  expect(last - second).toBeLessThanOrEqual(growthMax);
}

test(
  "the index of records in NATS: the heap is after the last flood as after the second",
  async () => {
    const index = new JobIndex();
    let revision = 0;
    const write = (job: StoredJob): void => {
      revision += 1;
      index.apply(job.id, decodeJob(encodeJob(job), revision));
    };
    const kib = await heaps(() => {
      for (const tenant of TENANTS) {
        const id = `job-${revision}`;
        const given = { id, spec: SPEC, bundleDigest: "", warnings: [], tenant, createdAtMs: revision };
        write(newJob({ ...given, priority: "normal" }));
      }
      for (let next = index.next(EQUAL_SHARES); next !== undefined; next = index.next(EQUAL_SHARES)) {
        const { job } = next;
        const charge = { tenant: job.tenant ?? "", cost: costOf(job.spec) };
        const accounts = charged(index.accounts, charge, EQUAL_SHARES);
        const [token, startedAtMs] = [next.revision, revision];
        const running: JobState = { kind: "running", owner: "a", token, cancelRequested: false, startedAtMs };
        write({ ...job, accounts, state: running });
        write({ ...job, accounts, state: { kind: "cancelled", startedAtMs, finishedAtMs: revision } });
      }
      for (const { job } of index.finished().slice(0, -JOBS_KEPT)) {
        // By the writer, then by the watch.
        revision += 1;
        index.remove(job.id, revision, true);
        index.remove(job.id, revision, false);
      }
    });
    expect([index.queuedCount(), index.finished().length]).toEqual([0, JOBS_KEPT]);
    expectFlat(kib, LEFT_KIB_MAX);
  },
  TEST_MS_MAX,
);
