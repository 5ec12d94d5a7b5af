// Experts that nobody holds, over real sockets: who is asked, what happens when it refuses, and who asks where a controller leads.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MoevieError, asMoevieError } from "@moevie/contracts";
import { serveExchange } from "@moevie/fabric";
import { Metrics, implement } from "@moevie/runtime";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Donors } from "./donors.ts";
import { ShardLinks } from "./shard-links.ts";

const log = { info: () => undefined, warn: () => undefined };
let folder: string;
const cleanups: (() => Promise<void> | void)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "moevie-donors-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

interface Shard {
  /** Ids of the operations asked for. */
  readonly asked: Set<string>;
  readonly experts: () => readonly number[];
  readonly end: () => Promise<void>;
}

/** Holds experts of layer 0, and takes what it is told to unless it `refuses`. */
async function shard(name: string, first: readonly number[], refuses?: MoevieError, fence = 0): Promise<Shard> {
  const asked = new Set<string>();
  let [epoch, experts] = [1, first];
  const holds = (): Parameters<typeof server.announce>[0] => ({
    digest: "model",
    epoch,
    slots: experts.map((expert, slot) => ({ layer: 0, expert, slot })),
  });
  const done = { phase: "OPERATION_PHASE_DONE" } as const;
  const service = implement("moevie.v1.PlacementService", {
    ApplyPlacement: (request) => {
      asked.add(request.operationId);
      if (refuses !== undefined) return Promise.reject(refuses);
      if (request.fence < fence) return Promise.reject(new MoevieError("LEASE_LOST", "an old fence"));
      if (request.epoch > epoch) {
        [epoch, experts] = [request.epoch, request.experts];
        server.announce(holds());
      }
      return Promise.resolve(done);
    },
    GetOperation: () => Promise.resolve(done),
    GetHoldings: () => Promise.resolve({ bundleDigest: "model", epoch, fence, experts: [...holds().slots] }),
  });
  const server = await serveExchange({
    listen: `unix:${join(folder, name)}`,
    holds: { digest: "model", epoch: 1, slots: first.map((expert, slot) => ({ layer: 0, expert, slot })) },
    handlers: {},
    services: [service],
  });
  cleanups.push(() => server.close(0));
  return { asked, experts: () => experts, end: () => server.close(0) };
}

/** A router of shards "a", "b" and "c", all of them ready. */
async function router(afterMs: number): Promise<{ links: ShardLinks; donors: Donors; page: () => Promise<string> }> {
  const metrics = new Metrics("router");
  const addresses = ["a", "b", "c"].map((name) => ({ address: `unix:${join(folder, name)}`, numbered: false }));
  const links = new ShardLinks({ addresses, digest: "model", model: { layers: 1, experts: 4 }, log, metrics });
  const donors = new Donors({ links, afterMs, log, metrics });
  cleanups.push(() => {
    donors.close();
    links.close();
  });
  while (!links.held().every(({ ready }) => ready)) await links.change(AbortSignal.timeout(10_000));
  return { links, donors, page: () => metrics.text() };
}

/** Waits as a step does until everything is held. */
async function step(links: ShardLinks, donors: Donors, waitMs = 20_000): Promise<void> {
  const endMs = performance.now() + waitMs;
  while (links.missing().length > 0) await donors.wait(new AbortController().signal, endMs, 0, "Nobody holds it.");
}

const gone = async (links: ShardLinks, { end }: Shard): Promise<void> => {
  await end();
  while (links.missing().length === 0) await links.change(AbortSignal.timeout(10_000));
};

test("the shard with fewest slots loads what is missing beside what it has, whichever routers ask", async () => {
  const [a, b, c] = [await shard("a", [0, 1]), await shard("b", [2]), await shard("c", [3])];
  const routers = [await router(0), await router(0)];
  for (const { links } of routers) await gone(links, c);
  await Promise.all(routers.map(({ links, donors }) => step(links, donors)));
  expect([a.experts(), b.experts()]).toEqual([
    [0, 1],
    [2, 3],
  ]);
  expect([a.asked.size, b.asked.size]).toEqual([0, 1]);
});

test("what one refuses another loads", async () => {
  const full = new MoevieError("OUT_OF_MEMORY", "Loading takes 9 bytes, 8 are free.");
  const [a, b, c] = [await shard("a", [0, 1]), await shard("b", [2], full), await shard("c", [3])];
  const { links, donors, page } = await router(0);
  await gone(links, c);
  await step(links, donors);
  expect([a.experts(), b.asked.size]).toEqual([[0, 1, 3], 1]);
  expect(await page()).toMatch(/^moevie_donor_loads_total\{.*"refused".*\} 1$/m);
});

const said = (at: number): string => `Shard ${at} did not load it: Loading takes 9 bytes, 8 are free.`;

test("where all refuse, what they said comes with EXPERT_MISSING at the deadline", async () => {
  const full = new MoevieError("OUT_OF_MEMORY", "Loading takes 9 bytes, 8 are free.");
  const c = await shard("c", [3]);
  await shard("a", [0, 1], full);
  await shard("b", [2], full);
  const { links, donors } = await router(0);
  await gone(links, c);
  const failure = await step(links, donors, 1500).catch(asMoevieError);
  expect(failure).toMatchObject({ reason: "EXPERT_MISSING" });
  expect(failure?.message).toBe(`Nobody holds it. ${said(0)} ${said(1)}`);
});

test("a shard that comes back soon is waited for, and a controller that asks finds donors itself", async () => {
  const [a, b, c] = [await shard("a", [0, 1]), await shard("b", [2]), await shard("c", [3])];
  const { links, donors } = await router(60_000);
  await gone(links, c);
  const back = step(links, donors);
  expect(donors.missing(performance.now(), false)).toEqual({ missing: [], waiting: 1 });
  expect(donors.missing(performance.now() + 61_000, false)).toEqual({ missing: [[0, 3]], waiting: 1 });
  const again = await shard("c", [3]);
  await back;
  const led = await router(0);
  led.donors.missing(performance.now(), true);
  await gone(led.links, again);
  await expect(step(led.links, led.donors, 300)).rejects.toMatchObject({ reason: "EXPERT_MISSING" });
  expect([a.asked.size, b.asked.size]).toEqual([0, 0]);
});

test("a donor is asked under the fence it knows, so that the next leader's is above it", async () => {
  const [a, c] = [await shard("a", [0, 1, 2], undefined, 7), await shard("c", [3])];
  await shard("b", [2, 0, 1], undefined, 7);
  const { links, donors } = await router(0);
  await gone(links, c);
  await step(links, donors);
  expect(a.experts()).toEqual([0, 1, 2, 3]);
});
