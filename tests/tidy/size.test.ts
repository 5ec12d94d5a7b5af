// Length: of a function, of a file, of the whole.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ROOT, packageOf, packageSources, productionSources, withoutComments } from "./source-files.ts";

/**
 * Lines of code each package may have: docs/decisions/size-budget.md says why. A package that outgrows its ceiling is split or
 * simplified first; a higher ceiling, or a new package, takes a new decision.
 */
const LINES_MAX: Readonly<Record<string, number>> = {
  bundle: 900,
  cli: 3400,
  client: 400,
  contracts: 900,
  controller: 1350,
  decoder: 1600,
  diffusion: 700,
  "expert-shard": 1000,
  fabric: 3250,
  gateway: 950,
  importer: 2600,
  "job-store": 4400,
  placement: 950,
  router: 2000,
  runtime: 1800,
  scheduler: 1600,
  tensor: 400,
  "text-encoder": 300,
};
const LINES_OF_PRODUCT_MAX = 27_400;

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

test("our own TypeScript stays under its budget of lines of code, each package and the whole: tests, generated code and comments apart", () => {
  const lines = new Map<string, number>();
  for (const file of productionSources()) {
    const name = packageOf(file.path);
    lines.set(name, (lines.get(name) ?? 0) + codeLines(file.text));
  }
  expect([...lines.keys()].filter((name) => LINES_MAX[name] === undefined)).toEqual([]);
  expect([...lines].filter(([name, count]) => count > (LINES_MAX[name] ?? 0))).toEqual([]);
  expect([...lines.values()].reduce((sum, count) => sum + count, 0)).toBeLessThan(LINES_OF_PRODUCT_MAX);
});

test("every source file begins with a comment that says why it exists", () => {
  const bare = packageSources().filter((file) => !/^(#![^\n]*\n)?(\/\/|\/\*)/.test(file.text));
  expect(bare.map((file) => file.path)).toEqual([]);
});
