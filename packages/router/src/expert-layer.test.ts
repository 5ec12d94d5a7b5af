// One layer over real sockets: lost rows go to another holder, missing experts are waited for, the answer never changes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MoevieError } from "@moevie/contracts";
import { WireType, serveExchange, weightedPartial } from "@moevie/fabric";
import type { ExchangeServer } from "@moevie/fabric";
import { Metrics, expandAddresses, openTracing } from "@moevie/runtime";
import { afterEach, expect, test } from "vitest";
import { runExpertLayer } from "./expert-layer.ts";
import { Donors } from "./donors.ts";
import { HedgePolicy } from "./hedge-policy.ts";
import { ShardLinks } from "./shard-links.ts";
import type { LayerCall } from "./shard-work.ts";

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

const d = 4;
const rows = Float32Array.from({ length: 6 * d }, (_, at) => Math.sin(at));
const choice = {
  ids: Int32Array.of(0, 1, 1, 2, 2, 3, 3, 0, 0, 2, 1, 3),
  weights: new Float32Array(12).fill(0.5),
  k: 2,
};
/** Every expert is the identity and the weights sum to one: the layer gives its rows back. */
const expected = rows;

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "moevie-test-"));
  cleanups.push(() => rmSync(path, { recursive: true }));
  return path;
}

/** The rows of each request are added to `asked`; it is answered after `before`. */
async function shard(
  path: string,
  experts: readonly number[],
  fail = false,
  asked: Float32Array[] = [],
  before: () => Promise<void> = () => Promise.resolve(),
): Promise<ExchangeServer> {
  const slots = experts.map((expert, slot) => ({ layer: 0, expert, slot }));
  const server = await serveExchange({
    listen: `unix:${path}`,
    holds: { digest: "model", epoch: 1, slots },
    handlers: {
      rows: async (request) => {
        asked.push(request.rows.slice());
        if (fail) throw new MoevieError("DRAINING", "going away");
        const answers = new Float32Array(request.csr.rowIndex.length * d);
        request.csr.rowIndex.forEach((row, entry) =>
          answers.set(request.rows.subarray(row * d, row * d + d), entry * d),
        );
        const partial = new Float32Array(request.n * d);
        weightedPartial(request.csr, answers, request.csr.offsets, d, partial);
        await before();
        return { partial, queueUs: 0, computeUs: 0 };
      },
    },
  });
  cleanups.push(() => server.close(0));
  return server;
}

async function router(
  addresses: readonly string[],
  hedges = new HedgePolicy({ share: 0.05 }),
  wire: WireType = WireType.f32,
): Promise<{
  links: ShardLinks;
  run: (changes?: Partial<LayerCall>) => Promise<Float32Array>;
  page: () => Promise<string>;
}> {
  const metrics = new Metrics("router");
  const log = { info: () => undefined, warn: () => undefined };
  const peers = expandAddresses(addresses, "MOEVIE_SHARDS");
  const links = new ShardLinks({ addresses: peers, digest: "model", model: { layers: 1, experts: 4 }, log, metrics });
  cleanups.push(() => links.close());
  const donors = new Donors({ links, afterMs: 60_000, log: { info: () => undefined, warn: () => undefined }, metrics });
  cleanups.push(() => donors.close());
  const tracing = await openTracing({ service: "router", endpoint: "", sampleRatio: 1 });
  const run = async (changes: Partial<LayerCall> = {}): Promise<Float32Array> => {
    const call = {
      layer: 0,
      branch: 1,
      rows,
      choice,
      d,
      signal: new AbortController().signal,
      endMs: performance.now() + 20_000,
    };
    const out = new Float32Array(rows.length).fill(Number.NaN);
    await runExpertLayer(
      { links, wire, hedges, donors, metrics, tracing },
      { ...call, traceparent: undefined, ...changes },
      out,
    );
    return out;
  };
  return { links, run, page: () => metrics.text() };
}

async function ready(links: ShardLinks): Promise<void> {
  while (links.missing().length > 0) await links.change(AbortSignal.timeout(10_000));
}

test("rows refused by one shard are computed by another holder", async () => {
  const at = folder();
  await shard(join(at, "a"), [0, 1, 2, 3], true);
  await shard(join(at, "b"), [0, 1, 2, 3]);
  const { links, run } = await router([`unix:${join(at, "a")}`, `unix:${join(at, "b")}`]);
  await ready(links);
  expect(await run()).toEqual(expected);
});

test("copies share the rows of their expert, each row goes to a shard once, and of a shard that fails its rows alone are sent again", async () => {
  const at = folder();
  const [asked, askedFailing] = [[], []] as [Float32Array[], Float32Array[]];
  await shard(join(at, "a"), [0, 1, 2, 3], false, asked);
  await shard(join(at, "b"), [0, 1, 2, 3], true, askedFailing);
  const { links, run } = await router([`unix:${join(at, "a")}`, `unix:${join(at, "b")}`]);
  while (!links.held().every(({ ready: isReady }) => isReady)) await links.change(AbortSignal.timeout(10_000));
  expect(await run()).toEqual(expected);
  // Six rows, each with both of its experts at one shard: three and three, then the failing shard's three.
  expect(asked.map(({ length }) => length / d)).toEqual([3, 3]);
  expect(askedFailing.map(({ length }) => length / d)).toEqual([3]);
  expect(asked[1]).toEqual(askedFailing[0]);
});

test("a layer waits for a missing expert's shard and goes on when it comes", async () => {
  const at = folder();
  await shard(join(at, "a"), [0, 1]);
  const { links, run } = await router([`unix:${join(at, "a")}`, `unix:${join(at, "b")}`]);
  const result = run();
  await shard(join(at, "b"), [2, 3]);
  expect(await result).toEqual(expected);
  expect(links.epoch).toBe(1);
});

test("a shard of a numbered row that comes later is found and used; its number is its place in the row", async () => {
  const at = folder();
  await shard(join(at, "s-0"), [0, 1]);
  const { links, run } = await router([`unix:${join(at, "s-{0-63}")}`]);
  const result = run();
  await shard(join(at, "s-2"), [2, 3]);
  expect(await result).toEqual(expected);
  expect(links.present).toBe(2);
  expect(links.held().map(({ ready: isReady, slots }) => [isReady, slots.length])).toEqual([
    [true, 2],
    [false, 0],
    [true, 2],
  ]);
});

test("an expert nobody holds in time is EXPERT_MISSING, a cancelled call is CANCELLED", async () => {
  const at = folder();
  await shard(join(at, "a"), [0, 1]);
  const { run } = await router([`unix:${join(at, "a")}`]);
  await expect(run({ endMs: performance.now() + 50 })).rejects.toMatchObject({ reason: "EXPERT_MISSING" });
  const abort = new AbortController();
  const cancelled = run({ signal: abort.signal });
  abort.abort();
  await expect(cancelled).rejects.toMatchObject({ reason: "CANCELLED" });
});

/** A gate that is shut from time to time. */
class Gate {
  #open = Promise.resolve();
  readonly pass = (): Promise<void> => this.#open;

  /** Shut until the function it answers is called. */
  shut(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#open = promise;
    return resolve;
  }
}

/** Three experts a row, with weights whose products round. */
const THREE = {
  ids: Int32Array.of(0, 1, 2, 1, 2, 3, 0, 2, 3, 0, 1, 3, 3, 1, 0, 2, 1, 0),
  weights: Float32Array.from({ length: 18 }, (_, at) => 0.1 + at / 17),
  k: 3,
};
const TWO = { ...choice, weights: Float32Array.from({ length: 12 }, (_, at) => 0.1 + at / 11) };

test.each([
  ["one shard that holds all of it, two experts a row", TWO, [[0, 1, 2, 3]]],
  ["one shard that holds all of it, three experts a row", THREE, [[0, 1, 2, 3]]],
  [
    "two that hold half each, two experts a row",
    TWO,
    [
      [0, 1],
      [2, 3],
    ],
  ],
] as const)("a late shard's rows go to %s: the same bits, long before its deadline", async (_what, asked, others) => {
  const at = folder();
  const gate = new Gate();
  await shard(join(at, "a"), [0, 1, 2, 3], false, [], gate.pass);
  for (const [index, experts] of others.entries()) await shard(join(at, `b${index}`), experts);
  const names = ["a", ...others.map((_, index) => `b${index}`)];
  const addresses = names.map((name) => `unix:${join(at, name)}`);
  const { links, run, page } = await router(addresses, new HedgePolicy({ share: 1, afterMsMin: 60 }));
  while (!links.held().every(({ ready: isReady }) => isReady)) await links.change(AbortSignal.timeout(10_000));
  const calm = await run({ choice: asked });
  for (let times = 0; times < 20; times++) expect(await run({ choice: asked })).toEqual(calm);
  const open = gate.shut();
  // While it is late it is asked for nothing that others hold.
  for (let times = 0; times < 3; times++) expect(await run({ choice: asked })).toEqual(calm);
  const text = await page();
  expect(text).toMatch(/^moevie_exchange_hedges_total\{.*shard="0",outcome="won".*\} [1-9]$/m);
  expect(text).not.toMatch(/^moevie_exchange_retries_total\{.*\} [1-9]/m);
  open();
  await expect.poll(page).toMatch(/^moevie_exchange_late_answers_total\{.*shard="0".*\} [1-9]$/m);
  expect(links.rowsInFlight).toEqual(new Uint32Array(names.length));
});

test("three experts a row are not split over two shards, and where the share is 0 nothing is: the late shard is waited for", async () => {
  for (const [asked, share] of [
    [THREE, 1],
    [TWO, 0],
  ] as const) {
    const at = folder();
    const gate = new Gate();
    await shard(join(at, "a"), [0, 1, 2, 3], false, [], gate.pass);
    await shard(join(at, "b"), [0, 1]);
    await shard(join(at, "c"), [2, 3]);
    const addresses = ["a", "b", "c"].map((name) => `unix:${join(at, name)}`);
    const { links, run, page } = await router(addresses, new HedgePolicy({ share, afterMsMin: 20 }));
    while (!links.held().every(({ ready: isReady }) => isReady)) await links.change(AbortSignal.timeout(10_000));
    const calm = await run({ choice: asked });
    for (let times = 0; times < 20; times++) await run({ choice: asked });
    const open = gate.shut();
    const late = run({ choice: asked });
    expect(await Promise.race([late, new Promise((resolve) => setTimeout(resolve, 60, "late"))])).toBe("late");
    open();
    expect(await late).toEqual(calm);
    expect(await page()).not.toMatch(/^moevie_exchange_hedges_total\{.*shard="0".*\} [1-9]/m);
  }
});

test("where products are rounded on the wire, neither other rows under way nor lateness decide which shards sum a row", async () => {
  const at = folder();
  const addresses = ["a", "b"].map((name) => `unix:${join(at, name)}`);
  const asked = [[], []] as [Float32Array[], Float32Array[]];
  await shard(join(at, "a"), [0, 1, 2], false, asked[0]);
  await shard(join(at, "b"), [1, 2, 3], false, asked[1]);
  const hedges = new HedgePolicy({ share: 0.05 });
  const { links, run } = await router(addresses, hedges, WireType.bf16);
  while (!links.held().every(({ ready: isReady }) => isReady)) await links.change(AbortSignal.timeout(10_000));
  const weights = choice.weights.map((_, entry) => (entry % 2 === 0 ? 0.3 : 0.7));
  const calm = await run({ choice: { ...choice, weights } });
  links.rowsInFlight[0] = 65_000;
  hedges.late(1, performance.now());
  expect(await run({ choice: { ...choice, weights } })).toEqual(calm);
  expect(asked.map(([first, second]) => [first, second])).toEqual(asked.map(([first]) => [first, first]));
});
