// The plan as a command: what its JSON holds, that it is a placement, and what is said of files and sizes that do not fit.
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { CommandContext, CommandResult, RawFlags } from "../command.ts";
import { UsageError } from "../failure.ts";
import { planExperts } from "./experts-plan.ts";

const folder = mkdtempSync(join(tmpdir(), "experts-plan-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** EPLB's README. */
const LOADS = [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
];
const loads = file("loads.json", JSON.stringify(LOADS));
const sizes = { slots: "16", shards: "8", groups: "4", nodes: "2" };
const run = (flags: RawFlags): Promise<CommandResult> =>
  planExperts({} as CommandContext, [], { loads, ...sizes, ...flags });

async function refusal(flags: RawFlags): Promise<string> {
  const thrown: unknown = await run(flags).catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(UsageError);
  return (thrown as UsageError).message;
}

test("slots, copies, loads, balancedness and words of EPLB's README", async () => {
  const { json, lines } = await run({});
  const printed = JSON.parse(JSON.stringify(json)) as Record<string, unknown>;
  expect(printed).toMatchObject({
    epoch: 1,
    sizes: { layers: 2, experts: 12, slots: 16, shards: 8, groups: 4, nodes: 2 },
    shares: "equal",
    balancedness: { equal: expect.closeTo(0.8156, 4), bound: 1 },
    moves: 0,
    layers: [
      {
        slotExperts: [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        copies: [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1],
        shardLoads: [121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152],
        balancedness: expect.closeTo(0.8277, 4),
        explanation: "2 copies of experts 1, 4, 5, 10",
      },
      {
        expertSlots: expect.arrayContaining([
          [10, 12],
          [3, 6],
        ]),
      },
    ],
  });
  expect(lines.join("\n")).toContain("Hierarchical: 4 groups of 3 experts stay together on 2 nodes of 4 shards");
  expect(lines).toContain("0      0.8277   6 (156)             0      2 copies of experts 1, 4, 5, 10");
  expect(lines).toContain("  shard 6           156  experts 0 1");
});

test("the JSON is a placement that the next plan keeps: nothing moves, and the epoch rises", async () => {
  const keep = file("plan.json", JSON.stringify((await run({})).json));
  const { json } = await run({ keep });
  expect(json).toMatchObject({ epoch: 2, moves: 0 });
  const changed = LOADS.map((layer) => layer.map((load, expert) => load + (expert === 7 ? 400 : 0)));
  const moved = await run({ keep, loads: file("changed.json", JSON.stringify({ rows: changed })) });
  const { moves, layers } = moved.json as {
    moves: number;
    layers: { moves: { slot: number; from: number; to: number }[] }[];
  };
  expect(moves).toBeGreaterThan(0);
  expect(moves).toBeLessThan(16);
  expect(layers.flatMap((layer) => layer.moves).some(({ to }) => to === 7)).toBe(true);
  expect(moved.lines.some((line) => line.startsWith(`${moves} of 32 slots get another expert`))).toBe(true);
});

test("many shards are a line a layer", async () => {
  const many = file("many.json", JSON.stringify(Array.from({ length: 9 }, () => LOADS[0])));
  expect((await run({ loads: many })).lines.filter((line) => /^\d/.test(line)).length).toBe(1 + 9);
  expect((await run({ loads: many })).lines.some((line) => line.startsWith("  shard"))).toBe(false);
});

describe("what does not fit is said with the value and what is allowed", () => {
  test.each([
    [{ loads: "" }, '--loads is ""; allowed: a JSON file of loads'],
    [{ loads: folder }, "this is not a file"],
    [{ slots: "15" }, '--slots is "15"; allowed: a multiple of the 8 shards'],
    [{ slots: "8" }, '--slots is "8"; allowed: at least one for each of the 12 experts of a layer'],
    [{ slots: "16.0" }, '--slots is "16.0"; allowed: a whole number from 1 to 4096'],
    [{ slots: undefined }, '--slots is ""; allowed: a whole number from 1 to 4096'],
    [{ shards: "-8" }, '--shards is "-8"; allowed: a whole number from 1 to 1024'],
    [{ groups: "8" }, `--groups is "8"; allowed: a divisor of the 12 experts of a layer`],
    [{ nodes: "3" }, '--nodes is "3"; allowed: a divisor of the 8 shards'],
    [
      { nodes: "1e1", groups: "x" },
      '--groups is "x"; allowed: a whole number from 1 to the 12 experts of a layer\n--nodes is "1e1"',
    ],
  ])("%j", async (flags, words) => {
    expect(await refusal(flags as RawFlags)).toContain(words);
  });

  test.each([
    ["", "this is not JSON: Unexpected end of JSON input"],
    ["[[NaN]]", "this is not JSON: Unexpected token"],
    ["[]", "loads: has 0 entries, must have at least 1"],
    ["[[1,2],[3]]", "loads[1]: has 1 entries, must have 2 as loads[0]"],
    ["[[1,-2]]", "loads[0][1]: is -2, must be a number from 0 to 9007199254740991"],
    ["[[1e999]]", "loads[0][0]: is Infinity, must be a number from 0 to 9007199254740991"],
    ['{"rows":[["a"]]}', 'rows[0][0]: is "a", must be a number'],
  ])("loads of %j", async (text, words) => {
    expect(await refusal({ loads: file("bad.json", text) })).toContain(words);
  });

  test.each([
    ["[]", "placement: is [], must be an object"],
    ['{"epoch":1,"shards":[{"slots":[[0,12]]}]}', "shards[0].slots[0][1]: is 12, must be a whole number from 0 to 11"],
    ['{"epoch":1,"shards":[{"slots":[[0,0]]}]}', "shards: no shard holds expert 1 of layer 0"],
  ])("a placement to keep of %j", async (text, words) => {
    expect(await refusal({ keep: file("kept.json", text) })).toContain(words);
  });

  test("a file that is too large is not read", async () => {
    const large = file("large.json", "[]");
    truncateSync(large, 65 * 1024 * 1024);
    expect(await refusal({ loads: large })).toContain("this one has 65.0 MiB, at most 64.0 MiB are read");
  });
});
