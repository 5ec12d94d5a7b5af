// The judge of `bench adherence` in plain loops gives what PyTorch recorded for it, and its shares their known bounds.
import { join } from "node:path";
import { expect, test } from "vitest";
import { Judge } from "../bench/adherence/judge.ts";
import { shareOf } from "../bench/adherence/shares.ts";
import { readTensors } from "./safetensors-file.ts";
import { largestDifference } from "./sessions.ts";

const FILE = join(import.meta.dirname, "../bench/adherence/judge.safetensors");

test("a drawn clip gets the recorded answer", () => {
  const tensors = readTensors(FILE);
  const got = new Judge(FILE, [7, 8, 5, 3, 3, 4]).logits(tensors.get("example.pictures")!.data);
  const want = tensors.get("example.logits")!.data;
  expect(got).toHaveLength(want.length);
  expect(largestDifference(got, want)).toBeLessThan(1e-3);
});

test("95 % bounds of 9 in 10 and of 10 in 10", () => {
  const hits = Array.from({ length: 10 }, (_, at) => at !== 0);
  expect(shareOf(hits).low).toBeCloseTo(0.596, 3);
  expect(shareOf(hits).high).toBeCloseTo(0.982, 3);
  expect(shareOf(hits.map(() => true)).low).toBeCloseTo(0.722, 3);
});
