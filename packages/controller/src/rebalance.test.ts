// Moving experts between shards that refuse: what was lost comes back wherever there is room, in few tries, and nothing that is held is lost
// for it. The real decision, plan and way of a layer; shards that only count bytes.
import { MoevieError } from "@moevie/contracts";
import { uncovered } from "@moevie/placement";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { heldPlacement } from "./cluster-view.ts";
import type { Member } from "./cluster-view.ts";
import { decide } from "./decide.ts";
import type { Decision } from "./decide.ts";
import { rebalance } from "./rebalance.ts";
import { Refusals } from "./refusals.ts";
import type { LayerTarget } from "./shard-control.ts";

const EXPERT_BYTES = 1000;
const model = { layers: 2, experts: 6 };
const LAYERS = [0, 1];
const EXPERTS = [0, 1, 2, 3, 4, 5];

/** A shard that loads a layer as a whole, if that takes no more than `freeBytes`. */
class CountedShard {
  readonly held: number[][];
  readonly asked: LayerTarget[] = [];
  readonly #freeBytes: number;
  readonly #isKnown: boolean;
  readonly #onChange: () => void;

  /** Its refusals name their bytes if `isKnown`. */
  constructor(held: readonly (readonly number[])[], freeBytes: number, isKnown: boolean, onChange: () => void) {
    this.held = held.map((experts) => [...experts]);
    this.#freeBytes = freeBytes;
    this.#isKnown = isKnown;
    this.#onChange = onChange;
  }

  apply(target: LayerTarget): Promise<void> {
    this.asked.push(target);
    const neededBytes = target.experts.length * EXPERT_BYTES;
    const memory = this.#isKnown ? { neededBytes, freeBytes: this.#freeBytes } : undefined;
    if (neededBytes > this.#freeBytes) return Promise.reject(new MoevieError("OUT_OF_MEMORY", "full", { memory }));
    this.held[target.layer] = [...target.experts];
    this.#onChange();
    return Promise.resolve();
  }

  member(index: number): Member {
    const slots = this.held.flatMap((experts, layer) => experts.map((expert) => ({ layer, expert })));
    return {
      index,
      control: this as unknown as Member["control"],
      holdings: {
        bundleDigest: "",
        epoch: 1,
        fence: 1,
        experts: slots.map((slot, at) => ({ ...slot, slot: at })),
        running: null,
        freeBytes: this.#freeBytes,
        leaving: false,
      },
    };
  }
}

/** As a leader does it: decides and moves until there is nothing more to try; what was decided last, and how often. */
async function settle(shards: readonly CountedShard[]): Promise<{ decision: Decision; tries: number }> {
  const refusals = new Refusals(true);
  for (let tries = 1; ; tries++) {
    const members = shards.map((shard, index) => shard.member(index));
    const held = heldPlacement(members);
    const rooms = members.map(({ index }) => refusals.room(index));
    const loads = LAYERS.map(() => new Float64Array(model.experts));
    const decision = decide({ model, loads, current: held, held, rooms, slots: 0, gainMin: 1, mature: false });
    if (decision.placement === undefined) return { decision, tries };
    const { failure } = await rebalance({
      members,
      held,
      wanted: decision.placement,
      layers: model.layers,
      fence: 1,
      signal: new AbortController().signal,
      restRatio: 0,
      onStage: () => undefined,
    });
    const refused = failure === undefined ? undefined : members[failure.member];
    if (failure !== undefined && refused !== undefined) refusals.add(refused, failure, 1, 0);
  }
}

const some = fc.uniqueArray(fc.constantFrom(...EXPERTS), { maxLength: EXPERTS.length });
const shardsOf = fc.array(fc.record({ held: fc.tuple(some, some), free: fc.nat(7), isKnown: fc.boolean() }), {
  minLength: 1,
  maxLength: 4,
});

test("whoever refuses: what was lost is held wherever there is room, each shard is tried a few times, and what was held stays held", async () => {
  await fc.assert(
    fc.asyncProperty(shardsOf, async (cases) => {
      const shards: CountedShard[] = [];
      const everywhere = (): string[] =>
        LAYERS.flatMap((layer) => shards.flatMap((shard) => (shard.held[layer] ?? []).map((e) => `${layer}.${e}`)));
      let heldBefore = new Set<string>();
      const gone: string[] = [];
      const look = (): void => {
        const now = new Set(everywhere());
        gone.push(...[...heldBefore].filter((expert) => !now.has(expert)));
        heldBefore = now;
      };
      for (const { held, free, isKnown } of cases)
        shards.push(new CountedShard(held, free * EXPERT_BYTES, isKnown, look));
      heldBefore = new Set(everywhere());
      const { decision, tries } = await settle(shards);
      expect(gone).toEqual([]);
      expect(tries).toBeLessThanOrEqual(2 + 4 * shards.length);
      const lost = uncovered(heldPlacement(shards.map((shard, index) => shard.member(index))).shards, model);
      if (lost.length > 0) expect(new Set(decision.unplaced.map(String))).toEqual(new Set(lost.map(String)));
      // Where bytes were named, nobody who has room for one more is passed over.
      for (const [layer] of lost)
        shards.forEach((shard, index) => {
          if (cases[index]?.isKnown === true)
            expect((shard.held[layer]?.length ?? 0) + 1).toBeGreaterThan(cases[index]?.free ?? 0);
        });
    }),
  );
});

/** One way from what shards hold of layer 0 to that. */
function moved(shards: readonly CountedShard[], wanted: readonly number[][]): ReturnType<typeof rebalance> {
  const members = shards.map((shard, index) => shard.member(index));
  const slots = wanted.map((experts) => ({ slots: experts.map((expert) => [0, expert] as const) }));
  return rebalance({
    members,
    held: heldPlacement(members),
    wanted: { epoch: 2, shards: slots },
    layers: model.layers,
    fence: 1,
    signal: new AbortController().signal,
    restRatio: 0,
    onStage: () => undefined,
  });
}

/** Holds experts of layer 0, and has room for so many. */
const holding = (experts: number[], room: number): CountedShard =>
  new CountedShard([experts, []], room * EXPERT_BYTES, true, () => undefined);

test("what a shard took before another refused stays where nobody had held it, and goes where somebody had", async () => {
  const shards = [holding([0], 9), holding([1, 2], 0)];
  const { failure, layersChanged } = await moved(shards, [
    [0, 1, 3],
    [1, 2, 4],
  ]);
  expect(layersChanged).toBe(0);
  const error = { reason: "OUT_OF_MEMORY" };
  expect(failure).toMatchObject({ layer: 0, member: 1, asked: [1, 2, 4], held: [1, 2], error });
  expect(shards.map(({ held }) => held[0])).toEqual([
    [0, 3],
    [1, 2],
  ]);
});

test("a shard that cannot be given back what it gave up leaves it where it went", async () => {
  const shards = [holding([], 9), holding([0, 1, 2], 2), holding([3, 4, 5], 0)];
  const { failure } = await moved(shards, [
    [0, 3],
    [1, 2],
    [4, 5],
  ]);
  expect(failure).toMatchObject({ member: 2, asked: [4, 5], held: [3, 4, 5] });
  expect(shards.map(({ held }) => held[0])).toEqual([
    [0, 3],
    [1, 2],
    [3, 4, 5],
  ]);
});
