// Whether routers miss an expert: their own servers, asked by HTTP. Where shards are and for how long they are suspect, tests/parity has.
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
