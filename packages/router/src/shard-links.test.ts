// Shards that are gone for good are forgotten, with all that is kept for them; those that come back under their number are known anew.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serveExchange } from "@moevie/fabric";
import type { ExchangeServer } from "@moevie/fabric";
import { Metrics, expandAddresses } from "@moevie/runtime";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ShardLinks } from "./shard-links.ts";
import type { ShardLinksOptions } from "./shard-links.ts";

const WAIT_MS = 20_000;
const FORGET_MS = 300;

let folder: string;
const cleanups: (() => Promise<void> | void)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "moevie-links-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

const path = (index: number): string => join(folder, `shard-${index}.sock`);

async function shard(index: number): Promise<ExchangeServer> {
  const holds = { digest: "model", epoch: 1, slots: [{ layer: 0, expert: index, slot: 0 }] };
  const server = await serveExchange({ listen: `unix:${path(index)}`, holds, handlers: {} });
  cleanups.push(() => server.close(0));
  return server;
}

interface Router {
  readonly links: ShardLinks;
  readonly forgotten: number[];
  readonly page: () => Promise<string>;
}

/** A router of shards 0 and 1, both of them ready. */
async function router(addresses: ShardLinksOptions["addresses"]): Promise<Router> {
  const metrics = new Metrics("router");
  const forgotten: number[] = [];
  const links = new ShardLinks({
    addresses,
    digest: "model",
    model: { layers: 1, experts: 2 },
    log: { info: () => undefined, warn: () => undefined },
    metrics,
    forgetMs: FORGET_MS,
    onForgotten: (index) => forgotten.push(index),
  });
  cleanups.push(() => links.close());
  while (links.missing().length > 0) await links.change(AbortSignal.timeout(WAIT_MS));
  return { links, forgotten, page: () => metrics.text() };
}

const row = (): ShardLinksOptions["addresses"] =>
  expandAddresses([`unix:${folder}/shard-{0-63}.sock`], "MOEVIE_SHARDS");
const usable = ({ links }: Router): boolean[] => links.held().map(({ ready }) => ready);

test("a shard of a numbered row that went away for good leaves no link, no series and nothing else; under its number a new one is found", async () => {
  await shard(0);
  const second = await shard(1);
  const asked = await router(row());
  expect(await asked.page()).toContain('moevie_expert_shard_ready{shard="1",service="router"} 1');
  await second.close(0);
  await vi.waitFor(() => expect(asked.forgotten).toEqual([1]), WAIT_MS);
  expect([asked.links.present, usable(asked)]).toEqual([1, [true]]);
  const page = await asked.page();
  expect(page).not.toContain('shard="1"');
  expect(page).toContain('moevie_expert_shard_ready{shard="0",service="router"} 1');
  expect(asked.links.missing()).toEqual([[0, 1]]);
  await shard(1);
  await vi.waitFor(() => expect(usable(asked)).toEqual([true, true]), WAIT_MS);
  expect(await asked.page()).toContain('moevie_expert_shard_ready{shard="1",service="router"} 1');
});

test("one in the middle of the row is forgotten too, by what is killed and leaves its socket's file; the others keep their numbers", async () => {
  const first = await shard(0);
  await shard(1);
  const asked = await router(row());
  await first.close(0);
  writeFileSync(path(0), "");
  await vi.waitFor(() => expect(asked.forgotten).toEqual([0]), WAIT_MS);
  expect(asked.links.replicas(0, 1)).toEqual([1]);
  expect([asked.links.present, usable(asked)]).toEqual([1, [false, true]]);
  expect(await asked.page()).not.toContain('shard="0"');
});

test("a shard of a list that does not change is never forgotten", async () => {
  await shard(0);
  const second = await shard(1);
  const listed = [0, 1].map((index) => ({ address: `unix:${path(index)}`, numbered: false }));
  const asked = await router([...listed, ...row().slice(2)]);
  await second.close(0);
  await vi.waitFor(() => expect(usable(asked)).toEqual([true, false]), WAIT_MS);
  // Two looks later.
  await shard(2);
  await vi.waitFor(() => expect(usable(asked)).toEqual([true, false, true]), WAIT_MS);
  const third = await shard(3);
  await vi.waitFor(() => expect(asked.links.present).toBe(4), WAIT_MS);
  await third.close(0);
  await vi.waitFor(() => expect(asked.forgotten).toEqual([3]), WAIT_MS);
  expect(await asked.page()).toContain('moevie_expert_shard_ready{shard="1",service="router"} 0');
});
