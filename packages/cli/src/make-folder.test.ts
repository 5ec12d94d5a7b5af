// Folders for data: made with all they lie in, refused in the operating system's words, never waited for.
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { makeFolder } from "./make-folder.ts";

const folder = mkdtempSync(join(tmpdir(), "make-folder-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("makes what is missing, for its owner alone, and takes what is there", () => {
  const path = join(folder, "a", "b");
  makeFolder(path);
  makeFolder(path);
  expect(statSync(path).mode & 0o777).toBe(0o700);
});

test.each([
  ["below /proc", () => "/proc/moevie/data", "ENOENT"],
  ["straight in /proc", () => "/proc/moevie", "ENOENT"],
  ["below a file", () => join(folder, "file", "data"), "EEXIST"],
  ["a file", () => join(folder, "file"), "EEXIST"],
])("says at once why there is none %s", (_case, path, code) => {
  writeFileSync(join(folder, "file"), "");
  expect(() => makeFolder(path())).toThrow(expect.objectContaining({ code }));
});
