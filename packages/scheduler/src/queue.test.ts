// The queue for real: a scheduler with small services serves ten tenants of which one floods it, and ends a job at its deadline.
import { afterEach, expect, test } from "vitest";
import { FakeCluster, SPEC, ended, until } from "./cluster.fixture.ts";

const clusters: FakeCluster[] = [];
afterEach(async () => {
  for (const cluster of clusters.splice(0)) await cluster.close();
});

async function cluster(): Promise<FakeCluster> {
  const made = new FakeCluster();
  clusters.push(made);
  await made.serve();
  return made;
}

const SMALL = { ...SPEC, steps: 1, guidance: 1 };

test("200 jobs of ten tenants, 110 of them one's that came first: the others' are done after as many turns as they have jobs", async () => {
  const made = await cluster();
  const store = await made.openStore();
  for (let job = 0; job < 110; job += 1) await store.submit(SMALL, { tenant: "flooder" });
  for (let turn = 0; turn < 10; turn += 1)
    for (let other = 0; other < 9; other += 1) await store.submit(SMALL, { tenant: `tenant-${other}` });
  await made.schedule(store);
  const signal = AbortSignal.timeout(110_000);
  for (;;) {
    const after = store.changeCount;
    if ((await store.counts()).completed === 200) break;
    await store.waitForChange({ after, signal });
  }
  const jobs = [];
  for (let pageToken = "", first = true; first || pageToken !== ""; first = false) {
    const page = await store.list({ pageSize: 100, pageToken });
    jobs.push(...page.jobs);
    ({ nextPageToken: pageToken } = page);
  }
  const started = jobs
    .map(({ tenant, state }) => ({ tenant, at: "startedAtMs" in state ? (state.startedAtMs ?? 0) : 0 }))
    .toSorted((one, other) => one.at - other.at);
  const last = started.findLastIndex(({ tenant }) => tenant !== "flooder");
  const floods = started.slice(0, last).filter(({ tenant }) => tenant === "flooder").length;
  console.info(`the other nine were all started after ${last + 1} jobs, ${floods} of them the flooder's`);
  expect(floods).toBeLessThanOrEqual(12);
}, 120_000);

test("a job that runs past its deadline stops within a step and fails with the reason", async () => {
  const made = await cluster();
  const store = await made.openStore();
  let steps = 0;
  made.hooks.denoise = async () => {
    steps += 1;
    await new Promise((resolve) => setTimeout(resolve, 100));
  };
  await made.schedule(store);
  const { id } = await store.submit({ ...SPEC, steps: 50 }, { deadlineMs: 1500 });
  const job = await until(store, id, ended);
  expect(job.state).toMatchObject({ kind: "failed", error: { reason: "DEADLINE" } });
  const stopped = steps;
  await new Promise((resolve) => setTimeout(resolve, 400));
  expect(steps - stopped).toBeLessThanOrEqual(8);
  expect(stopped).toBeGreaterThan(0);
});
