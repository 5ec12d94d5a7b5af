// What `moevie experts` says of holders and balance, and of the controller: who leads, what was moved last, and what keeps it from doing more. Asked over real HTTP.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { CommandContext, CommandResult } from "../command.ts";
import { showExperts } from "./experts-show.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

const phases = [{ fromTimestep: 0, rows: [[4, 0]] }];
const shards = [0, 1].map((expert) => ({ address: `unix:/run/${expert}.sock`, ready: true, slots: [[0, expert]] }));
const router = { rows: [[4, 0]], phases, epoch: 3, shards };
const leader = {
  leads: true,
  fence: 2,
  why: "no shard holds expert 1 of layer 0, and none has room for it",
  suspects: ["shard-2:7900"],
  refusals: [{ shard: 0, layer: 0, asked: 2, room: 1, why: "Loading takes 8 bytes, 4 are free.", ageMs: 12_400 }],
  unplaced: [[0, 1], ...Array.from({ length: 20 }, (_, expert) => [1, expert])],
  lastRebalance: { outcome: "rolled_back", why: "full", layersChanged: 1, tookMs: 80, ageMs: 4000 },
};

/** The lines of a gateway that answers this, and what `--json` says. */
async function shown(
  answer: object,
): Promise<{ lines: readonly string[]; controller: unknown; json: CommandResult["json"] }> {
  const server = createServer((_request, response) => response.end(JSON.stringify(answer)));
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => void server.close());
  const context = { interruption: { signal: new AbortController().signal } } as CommandContext;
  const http = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { lines, json } = await showExperts(context, [], { http });
  return { lines, controller: json["controller"], json };
}

test("the controller that leads, its last rebalance, what shards refused and what nobody has room for", async () => {
  const { lines, controller } = await shown({
    routers: { router },
    controllers: { "controller-0": null, "controller-1": { ...leader, leads: false }, "controller-2": leader },
  });
  expect(controller).toEqual(leader);
  const from = lines.findIndex((line) => line.startsWith("a controller leads"));
  expect(lines.slice(from, from + 5)).toEqual([
    "a controller leads, fence 2: no shard holds expert 1 of layer 0, and none has room for it",
    "  last rebalance rolled back 4 s ago, 1 layer changed in 80 ms: full",
    "  no answer from shard-2:7900",
    "  shard 0 refused to hold 2 experts of layer 0 12 s ago, and has room for 1: Loading takes 8 bytes, 4 are free.",
    "  no shard has room for 21 experts, of them 1 of layer 0, 0 of layer 1, 1 of layer 1, 2 of layer 1, 3 of layer 1, 4 of layer 1, 5 of layer 1, 6 of layer 1",
  ]);
});

test("how many shards hold each expert, which where there are several, and how even shards and slots are", async () => {
  const slots = [
    [0, 0],
    [0, 2],
  ] as const;
  const held = [
    { address: "a:1", ready: true, slots },
    {
      address: "b:1",
      ready: true,
      slots: [
        [0, 0],
        [0, 1],
      ],
    },
    {
      address: "c:1",
      ready: true,
      slots: [
        [0, 0],
        [0, 3],
      ],
    },
  ];
  const rows = [[30, 5, 10, 3]];
  const { lines, json } = await shown({ rows, phases: [{ fromTimestep: 0, rows }], epoch: 1, shards: held });
  expect(json["holders"]).toEqual([[[0, 1, 2], [1], [0], [2]]]);
  expect(lines).toContain("  holders           3111");
  expect(lines).toContain("  on several shards  0: 0-2");
  const now = lines.find((line) => line.startsWith("balancedness"));
  // Shards of 20, 15 and 13; slots of 10, 10, 10, 5, 10 and 3.
  expect(now).toMatch(/^balancedness over shards 0\.8000 \(.*with the plan\), over slots 0\.8000 \(.*with the plan\)$/);
});

test("an expert on a shard that is away has no holder", async () => {
  const { lines, json } = await shown({
    ...router,
    shards: shards.map((shard, at) => ({ ...shard, ready: at === 0 })),
  });
  expect(json["holders"]).toEqual([[[0], []]]);
  expect(lines).toContain("  holders           10");
});

test("where no controller leads, or a router is asked, nothing is said of one", async () => {
  for (const answer of [router, { routers: { router } }, { routers: { router }, controllers: { controller: null } }]) {
    const { lines, controller } = await shown(answer);
    expect(controller).toBeUndefined();
    expect(lines.join("\n")).not.toContain("controller");
  }
});
