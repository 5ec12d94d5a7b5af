// Paths of a bundle: nothing outside the bundle and its roots can be reached.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Roots } from "./roots.ts";

const folder = realpathSync(mkdtempSync(join(tmpdir(), "moevie-roots-")));
const bundle = join(folder, "bundle");
beforeAll(() => {
  for (const name of ["bundle", "models/a", "secret"]) mkdirSync(join(folder, name), { recursive: true });
  for (const name of ["bundle/g.onnx", "models/a/w", "secret/s"]) writeFileSync(join(folder, name), "12345");
  symlinkSync(join(folder, "secret"), join(folder, "models/out"));
  symlinkSync(join(folder, "models/a/w"), join(folder, "models/in"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("files in the bundle and its roots are found, links inside a root too", async () => {
  const roots = await Roots.open(bundle, { weights: "../models" });
  expect(await roots.resolve("g.onnx")).toEqual({ file: join(bundle, "g.onnx"), bytes: 5 });
  expect(await roots.resolve("weights/a/w")).toEqual({ file: join(folder, "models/a/w"), bytes: 5 });
  expect(await roots.resolve("weights/in")).toEqual({ file: join(folder, "models/a/w"), bytes: 5 });
});

test("whatever leaves is refused by name", async () => {
  const roots = await Roots.open(bundle, { weights: "../models" });
  for (const [path, what] of [
    ["../secret/s", "leaves its root"],
    ["weights/../../secret/s", "leaves its root"],
    ["weights", "leaves its root"],
    ["/etc/hostname", "is absolute"],
    ["weights/out/s", "is a link that leaves its root"],
    ["weights/a", "is no file"],
    ["weights/none", "is missing"],
  ] as const) {
    await expect(roots.resolve(path)).rejects.toThrow(`${path}: ${what}`);
  }
  await expect(Roots.open(bundle, { weights: "../nowhere" })).rejects.toThrow(
    "root weights: folder ../nowhere is missing",
  );
});
