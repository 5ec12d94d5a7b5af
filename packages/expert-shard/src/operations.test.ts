// Operations that change what a shard holds: absolute, one at a time, asked for by id, rolled back when a load fails or is late.
import { MoevieError } from "@moevie/contracts";
import { expect, test, vi } from "vitest";
import { Operations } from "./operations.ts";
import type { HeldExperts } from "./operations.ts";
import type { ValidChange } from "./valid-change.ts";
import { validChange } from "./valid-change.ts";

/** A load is under way until its gate is opened or broken; what became of it stands in `log`. */
class GatedExperts implements HeldExperts {
  readonly log: string[] = [];
  gate = Promise.withResolvers<void>();

  neededBytes(_layer: number, experts: readonly number[]): Promise<number> {
    return Promise.resolve(experts.length * 1000);
  }

  async prepare(_layer: number, experts: readonly number[]): ReturnType<HeldExperts["prepare"]> {
    const what = experts.join();
    this.log.push(`load ${what}`);
    await this.gate.promise;
    return { commit: () => this.log.push(`commit ${what}`), discard: () => this.log.push(`discard ${what}`) };
  }
}

const slots = [
  { layer: 0, expert: 0, slot: 0 },
  { layer: 0, expert: 2, slot: 1 },
  { layer: 1, expert: 1, slot: 2 },
];

const nothing = (): void => undefined;

function setUp(freeBytes = Infinity): { held: GatedExperts; operations: Operations; told: string[] } {
  const held = new GatedExperts();
  const told: string[] = [];
  const operations = new Operations({
    held,
    holds: { digest: "d", epoch: 5, slots },
    freeBytes: () => freeBytes,
    log: { info: nothing, warn: nothing },
    metrics: { add: nothing, set: nothing },
    shard: "0",
  });
  operations.announceTo((holds) =>
    told.push(
      `${holds.epoch}: ${holds.slots.map(({ layer, expert, slot }) => `${layer}/${expert}@${slot}`).join(" ")}`,
    ),
  );
  return { held, operations, told };
}

test("a shard that leaves says so, goes on until it holds nothing, and then tells routers under a new epoch; without anybody to take its experts it ends in time", async () => {
  const { held, operations, told } = setUp();
  held.gate.resolve();
  expect(operations.leaving).toBe(false);
  const left = operations.leave(60_000);
  expect(operations.leaving).toBe(true);
  await operations.apply(change({ id: "a", epoch: 6, layer: 0, experts: [] }));
  await vi.waitUntil(() => operations.running === undefined);
  await operations.apply(change({ id: "b", epoch: 7, layer: 1, experts: [] }));
  await left;
  expect(told).toEqual(["6: 1/1@2", "7: ", "8: "]);
  const alone = setUp();
  await alone.operations.leave(1);
  expect(alone.told).toEqual(["6: "]);
  expect(alone.operations.holds.slots).toEqual(slots);
  await expect(alone.operations.apply(change())).rejects.toMatchObject({ reason: "DRAINING" });
});

const change = (changes: Partial<ValidChange> = {}): ValidChange => ({
  id: "a",
  fence: 1,
  epoch: 6,
  layer: 0,
  experts: [2, 3],
  deadlineMs: 60_000,
  ...changes,
});

test("a change is loaded, takes over, is told, and can be asked for; the same again changes nothing", async () => {
  const { held, operations, told } = setUp();
  expect(await operations.apply(change())).toMatchObject({ phase: "loading" });
  expect(operations.running?.id).toBe("a");
  expect(operations.holds.epoch).toBe(5);
  held.gate.resolve();
  await vi.waitUntil(() => operations.running === undefined);
  expect(operations.get("a")).toMatchObject({ phase: "done", epoch: 6 });
  // Expert 2 keeps its slot, expert 3 takes the one that expert 0 left.
  expect(told).toEqual(["6: 0/3@0 0/2@1 1/1@2"]);
  expect(await operations.apply(change())).toMatchObject({ phase: "done" });
  expect(held.log).toEqual(["load 2,3", "commit 2,3"]);
  await expect(operations.apply(change({ experts: [1] }))).rejects.toMatchObject({ reason: "INVALID_FIELD" });
});

test("a load that fails is rolled back with its reason, and the next one may come", async () => {
  const { held, operations, told } = setUp();
  await operations.apply(change());
  held.gate.reject(new MoevieError("BUNDLE_CORRUPT", "A graph of the bundle cannot be loaded."));
  await vi.waitUntil(() => operations.running === undefined);
  expect(operations.get("a")).toMatchObject({ phase: "rolled back", why: { reason: "BUNDLE_CORRUPT" } });
  expect([told, operations.holds.epoch]).toEqual([[], 5]);
  held.gate = Promise.withResolvers();
  held.gate.resolve();
  await operations.apply(change({ id: "b", experts: [] }));
  await vi.waitUntil(() => operations.running === undefined);
  expect(told).toEqual(["6: 1/1@2"]);
});

test("an operation that was rolled back is tried again under its id, with what is asked for now", async () => {
  const { held, operations, told } = setUp();
  await operations.apply(change());
  held.gate.reject(new MoevieError("OUT_OF_MEMORY", "The device has no room."));
  await vi.waitUntil(() => operations.running === undefined);
  held.gate = Promise.withResolvers();
  held.gate.resolve();
  expect(await operations.apply(change({ experts: [2] }))).toMatchObject({ phase: "loading" });
  await vi.waitUntil(() => operations.running === undefined);
  expect(operations.get("a")).toMatchObject({ phase: "done", experts: [2] });
  expect(told).toHaveLength(1);
});

test("what was loading when the shard left is thrown away: nobody is told of it", async () => {
  const { held, operations, told } = setUp();
  await operations.apply(change());
  await operations.leave(0);
  const before = told.length;
  held.gate.resolve();
  await vi.waitUntil(() => operations.running === undefined);
  expect(operations.get("a")).toMatchObject({ phase: "rolled back", why: { reason: "DRAINING" } });
  expect(held.log).toContain("discard 2,3");
  expect(told).toHaveLength(before);
});

test("a load that is late is rolled back at its deadline; what it brings later is thrown away, and until then nothing else is loaded", async () => {
  const { held, operations, told } = setUp();
  await operations.apply(change({ deadlineMs: 1 }));
  await vi.waitUntil(() => operations.get("a").phase === "rolled back");
  expect(operations.get("a")).toMatchObject({ why: { reason: "DEADLINE" } });
  await expect(operations.apply(change({ id: "b" }))).rejects.toMatchObject({ reason: "QUEUE_FULL" });
  held.gate.resolve();
  await vi.waitUntil(() => operations.running === undefined);
  expect([held.log, told]).toEqual([["load 2,3", "discard 2,3"], []]);
});

test("refused before anything is loaded: too little memory, an old epoch, an old leader, an unknown operation", async () => {
  const { held, operations } = setUp(1999);
  const refused = (changes: Partial<ValidChange>): Promise<unknown> => operations.apply(change(changes));
  await expect(refused({})).rejects.toThrow("Loading 2 experts of layer 0 takes 2000 bytes, 1999 are free.");
  await expect(refused({})).rejects.toMatchObject({ memory: { neededBytes: 2000, freeBytes: 1999 } });
  await expect(refused({ epoch: 5 })).rejects.toMatchObject({ reason: "STALE_PLACEMENT" });
  await expect(refused({ fence: 0 })).rejects.toMatchObject({ reason: "LEASE_LOST" });
  expect(() => operations.get("a")).toThrow('The shard knows no operation "a".');
  expect([held.log, operations.fence]).toEqual([[], 1]);
});

test.each([
  [{ operationId: "a b" }, 'operation_id is "a b"; allowed: 1 to 64 letters'],
  [{ layer: 2 }, "layer is 2; allowed: 0 to 1"],
  [{ experts: [1, 4] }, "experts is 4; allowed: 0 to 3"],
  [{ experts: [1, 0, 1] }, "experts is 1; allowed: once"],
  [{ deadlineMs: 0 }, "deadline_ms is 0; allowed: 1 to"],
])("%j is refused by its field", (changes, text) => {
  const request = { operationId: "a", fence: 1, epoch: 6, layer: 0, experts: [2, 0], deadlineMs: 1000 };
  const model = { layers: 2, experts: 4 };
  expect(validChange(request, model).experts).toEqual([0, 2]);
  expect(() => validChange({ ...request, ...changes }, model)).toThrow(text);
});
