// Whether routers miss an expert: their own servers, asked by HTTP; and how long a shard that went away is known. What shards hold,
// tests/parity has.
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { limit } from "@moevie/contracts";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ClusterWatch } from "./cluster-view.ts";
import { LoadWindow } from "./load-window.ts";

let folder: string;
const cleanups: (() => void)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "moevie-view-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
});
afterEach(() => {
  for (const cleanup of cleanups.splice(0).toReversed()) cleanup();
});

type Slot = readonly [layer: number, expert: number];

/** What a controller of these routers thinks; undefined: the router is not there. */
async function isMissed(routers: readonly ({ missing: Slot[]; waiting: number } | undefined)[]): Promise<boolean> {
  const addresses: string[] = [];
  for (const [at, page] of routers.entries()) {
    const path = join(folder, `${at}-${cleanups.length}`);
    addresses.push(`unix:${path}`);
    if (page === undefined) continue;
    const server = createServer((request, response) => {
      expect(request.url).toBe("/experts/missing?led");
      response.end(JSON.stringify(page));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
    cleanups.push(() => void server.close());
  }
  const log = { warn: () => undefined };
  const loads = new LoadWindow(1, 4, 1000);
  const watch = new ClusterWatch({ shards: [], routers: addresses, digest: "", goneMs: 30_000, loads, log }, 0);
  cleanups.push(() => watch.close());
  return watch.isMissed(new AbortController().signal);
}

test("an expert is missed when steps wait and all routers that answer miss the same one", async () => {
  expect(await isMissed([{ missing: [[0, 3]], waiting: 1 }])).toBe(true);
  const other = { missing: [[0, 2]] satisfies Slot[], waiting: 0 };
  expect(
    await isMissed([
      {
        missing: [
          [0, 2],
          [0, 3],
        ],
        waiting: 1,
      },
      other,
      undefined,
    ]),
  ).toBe(true);
});

test("it is not while no step waits, while another router reaches it, and where no router answers", async () => {
  expect(await isMissed([{ missing: [[0, 3]], waiting: 0 }])).toBe(false);
  expect(
    await isMissed([
      { missing: [[0, 3]], waiting: 1 },
      { missing: [[0, 2]], waiting: 4 },
    ]),
  ).toBe(false);
  expect(
    await isMissed([
      { missing: [[0, 3]], waiting: 1 },
      { missing: [], waiting: 0 },
    ]),
  ).toBe(false);
  expect(await isMissed([undefined])).toBe(false);
});

test("a shard of a numbered row that is gone for good is forgotten, and one that comes under its number is a new one; what is only silent stays known", async () => {
  const path = join(folder, "shard-0.sock");
  /** Somebody who takes connections and answers nothing. */
  const listen = async (): Promise<() => Promise<void>> => {
    const server = createSocket((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return () => new Promise((resolve) => void server.close(() => resolve()));
  };
  const options = { routers: [], digest: "", goneMs: 30_000, loads: new LoadWindow(1, 4, 1000) };
  const shards = [{ address: `unix:${path}`, numbered: true }];
  const forgotten: number[] = [];
  const told = { log: { warn: () => undefined }, onForgotten: (shard: number) => void forgotten.push(shard) };
  const watch = new ClusterWatch({ ...options, shards, ...told }, 0);
  cleanups.push(() => watch.close());
  const suspects = async (nowMs: number): Promise<number> =>
    (await watch.look(nowMs, new AbortController().signal, false)).suspects.length;
  let end = await listen();
  expect([await suspects(0), await suspects(29_999), await suspects(30_000)]).toEqual([1, 1, 0]);
  const forgottenMs = limit("shardAwayMsMax");
  // Silent, but there: it is not forgotten.
  expect([await suspects(forgottenMs), await suspects(forgottenMs + 1), forgotten]).toEqual([0, 0, []]);
  await end();
  expect([await suspects(forgottenMs + 2), forgotten]).toEqual([0, [0]]);
  end = await listen();
  expect(await suspects(forgottenMs + 3)).toBe(1);
  await end();
});
