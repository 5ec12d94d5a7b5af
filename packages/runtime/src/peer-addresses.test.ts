// Numbered peers: their places never change, and those that are there are found.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { expandAddresses, newPeers } from "./peer-addresses.ts";

test("a row of numbers stands for its addresses, in their order, beside others", () => {
  expect(expandAddresses(["a:1", "shard-{0-2}.shards:7900"], "MOEVIE_SHARDS")).toEqual([
    { address: "a:1", numbered: false },
    { address: "shard-0.shards:7900", numbered: true },
    { address: "shard-1.shards:7900", numbered: true },
    { address: "shard-2.shards:7900", numbered: true },
  ]);
});

test.each([
  [[], 'MOEVIE_SHARDS is ""; allowed: 1 to 4096 addresses'],
  [["shard-{3-2}:1"], 'MOEVIE_SHARDS has "shard-{3-2}:1"; allowed: {FROM-TO}, rising'],
  [["127.0.0.{1-4}:1"], "in a host's name or in the path of a socket"],
  [["host:{1-4}"], "in a host's name or in the path of a socket"],
  [["shard-{0-4}"], 'MOEVIE_SHARDS is "shard-0"; allowed: HOST:PORT'],
  [["shard-{0-5000}:1"], "allowed: 1 to 4096 addresses"],
  [["a-{0-1}:1", "b-{0-1}:1"], "one row of numbered ones at most"],
])("%j is refused by its setting", (list, message) => {
  expect(() => expandAddresses(list, "MOEVIE_SHARDS")).toThrow(message);
});

test("a socket that is listened on is a new peer, some numbers ahead of those known; a known one is not looked for again, and a file alone is nobody", async () => {
  const folder = mkdtempSync(join(tmpdir(), "moevie-peers-"));
  const numbers = [1, 7, 9, 30];
  const servers = numbers.map(() => createServer());
  try {
    const peers = expandAddresses([`unix:${folder}/shard-{0-63}.sock`], "MOEVIE_SHARDS");
    const path = (number: number): string => join(folder, `shard-${number}.sock`);
    const appear = (number: number): Promise<void> =>
      new Promise((resolve) => servers[numbers.indexOf(number)]?.listen(path(number), resolve));
    expect(await newPeers(peers, new Set())).toEqual([]);
    for (const number of [7, 9, 30]) await appear(number);
    writeFileSync(path(1), "");
    expect(await newPeers(peers, new Set())).toEqual([7, 9, 30]);
    expect(await newPeers(peers, new Set([7]))).toEqual([9]);
    rmSync(path(1));
    await appear(1);
    expect(await newPeers(peers, new Set([7, 9]))).toEqual([1]);
  } finally {
    for (const server of servers) server.close();
    rmSync(folder, { recursive: true });
  }
});

test("a name that resolves is a peer that is there", async () => {
  expect(await newPeers([{ address: "localhost:1", numbered: true }], new Set())).toEqual([0]);
  expect(await newPeers([{ address: "nobody.invalid:1", numbered: true }], new Set())).toEqual([]);
});
