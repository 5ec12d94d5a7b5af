// Files as memory: what one writes the other reads, locks that end with the process, and views that outlive what they showed.
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { fileMapper } from "./mapped-memory.ts";

const BYTES = 8192;

function openFile(): { readonly path: string; readonly descriptor: number } {
  const folder = mkdtempSync(join(tmpdir(), "moevie-map-"));
  const path = join(folder, "file");
  const descriptor = openSync(path, "w+");
  writeSync(descriptor, new Uint8Array(BYTES));
  onTestFinished(() => {
    closeSync(descriptor);
    rmSync(folder, { recursive: true });
  });
  return { path, descriptor };
}

test("two maps of a file are the same memory; a retired one reads as zeros and is the other's no more", async () => {
  const mapper = await fileMapper();
  const { descriptor } = openFile();
  const [ours, theirs] = [mapper.map(descriptor, BYTES), mapper.map(descriptor, BYTES)];
  const view = new Float32Array(ours.buffer, 4096, 4);
  view.set([1, 2, 3, 4]);
  expect([...new Float32Array(theirs.buffer, 4096, 4)]).toEqual([1, 2, 3, 4]);
  ours.retire();
  expect([...view]).toEqual([0, 0, 0, 0]);
  view.set([9, 9, 9, 9]);
  expect([...new Float32Array(theirs.buffer, 4096, 4)]).toEqual([1, 2, 3, 4]);
  theirs.retire();
});

test("what cannot be mapped is an error, not a wrong address", async () => {
  const mapper = await fileMapper();
  expect(() => mapper.map(-1, BYTES)).toThrow(/mmap of 8192 bytes failed, errno \d+/);
});

test("a lock is its holder's until the file is closed", async () => {
  const mapper = await fileMapper();
  const { path, descriptor } = openFile();
  expect(mapper.lock(descriptor)).toBe(true);
  const other = openSync(path, "r+");
  expect(mapper.lock(other)).toBe(false);
  closeSync(other);
});
