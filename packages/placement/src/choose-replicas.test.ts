// The choice of a copy, row by row: the order of the rules, and what holds for every choice.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { NO_HOLDER, chooseReplicas, type ReplicaChoice } from "./choose-replicas.ts";

function choose(
  choice: Partial<ReplicaChoice> & Pick<ReplicaChoice, "holders">,
  ids: readonly number[],
  k = 1,
): number[] {
  const far = { sameHost: [false, false, false], credits: [100, 100, 100] };
  return [...chooseReplicas({ ...far, ...choice, ids: Int32Array.from(ids), k })];
}

test("an expert with one holder goes there, one with none nowhere", () => {
  expect(choose({ holders: [[2], []] }, [0, 1, 0])).toEqual([2, NO_HOLDER, 2]);
});

test("a row goes to a shard that gets it anyway, even one without credits or of another host", () => {
  const holders = [[1], [0, 1, 2]];
  expect(choose({ holders, credits: [9, 0, 9], sameHost: [true, false, false] }, [0, 1, 1, 0], 2)).toEqual([
    1, 1, 1, 1,
  ]);
});

test("then to the same host, as far as that has credits", () => {
  const holders = [[0, 1, 2]];
  expect(choose({ holders, sameHost: [false, true, false] }, [0, 0, 0])).toEqual([1, 1, 1]);
  const few = { holders, sameHost: [false, true, false], credits: [1, 2, 1] };
  expect(choose(few, [0, 0, 0, 0])).toEqual([1, 1, 0, 2]);
});

test("then in ranges of rows that follow each other, as long as the shards' credits are", () => {
  const holders = [[0, 1, 2]];
  expect(choose({ holders, credits: [2, 4, 2] }, [0, 0, 0, 0, 0, 0, 0, 0])).toEqual([0, 0, 1, 1, 1, 1, 2, 2]);
  expect(choose({ holders, credits: [0, 8, 0] }, [0, 0, 0])).toEqual([1, 1, 1]);
  expect(choose({ holders, credits: [0, 0, -3] }, [0, 0, 0])).toEqual([0, 1, 2]);
});

test("an expert's rows are credits the next one does not have", () => {
  const holders = [[0, 1], [0, 1], [0]];
  // Two of shard 0's credits go to expert 2, so expert 0's row goes to shard 1, and each has one left for expert 1's.
  expect(choose({ holders, credits: [3, 2, 0] }, [2, 2, 0, 1, 1])).toEqual([0, 0, 1, 0, 1]);
});

const choices = fc
  .record({
    k: fc.integer({ min: 1, max: 3 }),
    rows: fc.nat(12),
    sameHost: fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
    credits: fc.array(fc.integer({ min: -2, max: 20 }), { minLength: 4, maxLength: 4 }),
    holders: fc.array(
      fc.subarray([0, 1, 2, 3]).map((shards) => shards.sort((a, b) => a - b)),
      { minLength: 5, maxLength: 5 },
    ),
  })
  .chain(({ k, rows, ...rest }) =>
    fc
      .array(fc.subarray([0, 1, 2, 3, 4], { minLength: k, maxLength: k }), { minLength: rows, maxLength: rows })
      .map((ids): ReplicaChoice => ({ ids: Int32Array.from(ids.flat()), k, ...rest })),
  );

test("every entry goes to a holder of its expert, the same for the same input, and input is left alone", () => {
  fc.assert(
    fc.property(choices, (choice) => {
      const before = structuredClone(choice);
      const shards = chooseReplicas(choice);
      choice.ids.forEach((expert, entry) => {
        const holders = choice.holders[expert] ?? [];
        if (holders.length === 0) expect(shards[entry]).toBe(NO_HOLDER);
        else expect(holders).toContain(shards[entry]);
      });
      expect(choice).toEqual(before);
      expect(chooseReplicas(choice)).toEqual(shards);
    }),
  );
});

test("no row goes to a shard for an expert that another shard of the row holds, if that gets it for a lower expert", () => {
  fc.assert(
    fc.property(choices, (choice) => {
      const shards = chooseReplicas(choice);
      choice.ids.forEach((expert, entry) => {
        const row = entry - (entry % choice.k);
        const others = [...Array(choice.k).keys()].map((at) => row + at).filter((at) => at !== entry);
        const fixed = (at: number): boolean =>
          choice.holders[choice.ids[at] ?? -1]?.length === 1 || (choice.ids[at] ?? 0) < expert;
        const sentAnyway = others.filter(fixed).map((at) => shards[at] ?? -1);
        const free = (choice.holders[expert] ?? []).length > 1;
        if (free && (choice.holders[expert] ?? []).some((shard) => sentAnyway.includes(shard)))
          expect(sentAnyway).toContain(shards[entry]);
      });
    }),
  );
});

test("one expert's rows lie in one range a shard where nothing else decides", () => {
  fc.assert(
    fc.property(fc.nat(200), fc.array(fc.nat(50), { minLength: 3, maxLength: 3 }), (rows, credits) => {
      const shards = choose({ holders: [[0, 1, 2]], credits }, Array<number>(rows).fill(0));
      expect(shards).toEqual([...shards].sort((a, b) => a - b));
      const total = credits.reduce((sum, credit) => sum + credit, 0);
      credits.forEach((credit, shard) => {
        const share = total === 0 ? rows / 3 : (rows * credit) / total;
        expect(Math.abs(shards.filter((at) => at === shard).length - share)).toBeLessThanOrEqual(1);
      });
    }),
  );
});
