// Length: of a function, of a file, of the whole.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ROOT, packageSources, productionSources, withoutComments } from "./source-files.ts";

const LINES_OF_PRODUCT_MAX = 15_000;

/** Lines that are neither blank nor comment. */
const codeLines = (text: string): number =>
  withoutComments(text)
    .split("\n")
    .filter((line) => line.trim() !== "").length;

test("no file is longer than 400 lines and no function longer than 70", () => {
  const config = join(ROOT, "tests", "tidy", "size.oxlintrc.json");
  const lint = spawnSync(
    join(ROOT, "node_modules", ".bin", "oxlint"),
    ["-c", config, "--format=unix", "packages", "tests", "tools"],
    { cwd: ROOT, encoding: "utf8" },
  );
  expect(lint.stdout.split("\n").filter((line) => line.includes("eslint(max-lines"))).toEqual([]);
  expect(lint.status, lint.stdout).toBe(0);
});

test("our own TypeScript stays under its budget of lines of code: tests, generated code and comments apart", () => {
  const lines = productionSources().reduce((sum, file) => sum + codeLines(file.text), 0);
  expect(lines).toBeLessThan(LINES_OF_PRODUCT_MAX);
});

test("every source file begins with a comment that says why it exists", () => {
  const bare = packageSources().filter((file) => !/^(#![^\n]*\n)?(\/\/|\/\*)/.test(file.text));
  expect(bare.map((file) => file.path)).toEqual([]);
});
