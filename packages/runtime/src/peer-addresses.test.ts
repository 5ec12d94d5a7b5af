// Numbered peers: their places never change, and those that are there are found.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
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

test("a socket file that appears is a new peer, some numbers ahead of those known; a known one is not looked for again", async () => {
  const folder = mkdtempSync(join(tmpdir(), "moevie-peers-"));
  try {
    const peers = expandAddresses([`unix:${folder}/shard-{0-63}.sock`], "MOEVIE_SHARDS");
    const appear = (number: number): void => writeFileSync(join(folder, `shard-${number}.sock`), "");
    expect(await newPeers(peers, new Set())).toEqual([]);
    for (const number of [7, 9, 30]) appear(number);
    expect(await newPeers(peers, new Set())).toEqual([7, 9, 30]);
    expect(await newPeers(peers, new Set([7]))).toEqual([9]);
    appear(1);
    expect(await newPeers(peers, new Set([7, 9]))).toEqual([1]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a name that resolves is a peer that is there", async () => {
  expect(await newPeers([{ address: "localhost:1", numbered: true }], new Set())).toEqual([0]);
  expect(await newPeers([{ address: "nobody.invalid:1", numbered: true }], new Set())).toEqual([]);
});
