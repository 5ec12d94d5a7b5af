// The lease of controllers on one machine: one at a time, fences that rise, no clock but the observer's own.
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { FileLease } from "./file-lease.ts";

const root = mkdtempSync(join(tmpdir(), "moevie-lease-"));
afterAll(() => rmSync(root, { recursive: true }));
const folder = (): string => mkdtempSync(join(root, "case-"));

test("a lease that is renewed stays; one that is not is taken over after its length, and its holder learns of it", async () => {
  const at = folder();
  const [first, second] = [new FileLease(at, 1000), new FileLease(at, 1000)];
  expect(await first.take(0, 0)).toBe(1);
  expect(await second.take(70_000, 0)).toBeUndefined();
  await first.renew(1);
  expect(await second.take(70_999, 0)).toBeUndefined();
  expect(await second.take(71_998, 0)).toBeUndefined();
  expect(await second.take(71_999, 0)).toBe(2);
  await expect(first.renew(1)).rejects.toMatchObject({ reason: "LEASE_LOST" });
  await second.renew(2);
  expect(readdirSync(at)).toEqual(["lease.2"]);
});

test("a lease that is given back is free at once; the fence rises all the same", async () => {
  const at = folder();
  const [first, second] = [new FileLease(at, 1000), new FileLease(at, 1000)];
  expect(await first.take(0, 0)).toBe(1);
  await first.release(1);
  expect(await second.take(0, 0)).toBe(2);
});

test("the fence is above what shards have seen", async () => {
  const at = folder();
  const lease = new FileLease(at, 1000);
  expect(await lease.take(0, 41)).toBe(42);
  await lease.renew(42);
  expect(readdirSync(at)).toEqual(["lease.42"]);
});

test("of many who want a free lease one gets it", async () => {
  const at = folder();
  const all = Array.from({ length: 8 }, () => new FileLease(at, 1000));
  const taken = await Promise.all(all.map((lease) => lease.take(0, 0)));
  expect(taken.filter((fence) => fence !== undefined)).toHaveLength(1);
});
