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
import type { LayerCall } from "./expert-layer.ts";
import { ShardLinks } from "./shard-links.ts";

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

/** The rows of each request are added to `asked`. */
async function shard(
  path: string,
  experts: readonly number[],
  fail = false,
  asked: Float32Array[] = [],
): Promise<ExchangeServer> {
  const slots = experts.map((expert, slot) => ({ layer: 0, expert, slot }));
  const server = await serveExchange({
    listen: `unix:${path}`,
    holds: { digest: "model", epoch: 1, slots },
    handlers: {
      rows: (request) => {
        asked.push(request.rows.slice());
        if (fail) return Promise.reject(new MoevieError("DRAINING", "going away"));
        const answers = new Float32Array(request.csr.rowIndex.length * d);
        request.csr.rowIndex.forEach((row, entry) =>
          answers.set(request.rows.subarray(row * d, row * d + d), entry * d),
        );
        const partial = new Float32Array(request.n * d);
        weightedPartial(request.csr, answers, request.csr.offsets, d, partial);
        return Promise.resolve({ partial, queueUs: 0, computeUs: 0 });
      },
    },
  });
  cleanups.push(() => server.close(0));
  return server;
}

async function router(
  addresses: readonly string[],
): Promise<{ links: ShardLinks; run: (changes?: Partial<LayerCall>) => Promise<Float32Array> }> {
  const metrics = new Metrics("router");
  const log = { info: () => undefined, warn: () => undefined };
  const peers = expandAddresses(addresses, "MOEVIE_SHARDS");
  const links = new ShardLinks({ addresses: peers, digest: "model", model: { layers: 1, experts: 4 }, log, metrics });
  cleanups.push(() => links.close());
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
      { links, wire: WireType.f32, metrics, tracing },
      { ...call, traceparent: undefined, ...changes },
      out,
    );
    return out;
  };
  return { links, run };
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
