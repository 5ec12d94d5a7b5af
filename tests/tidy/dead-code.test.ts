// Nothing lies about unused: no dead file, export or dependency, no switched-off test, no note to come back later.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT, filesUnder, packageSources } from "./source-files.ts";

const TEST_MS_MAX = 120_000;

const LEFTOVERS: readonly RegExp[] = [
  /\b(TODO|FIXME|XXX|HACK)\b/,
  /@ts-(ignore|expect-error|nocheck)/,
  /(oxlint|eslint)-disable/,
  /\b(test|it|describe)\.(skip|only|todo|skipIf|runIf)\b/,
  /\bdebugger;/,
];

describe("dead and unfinished code", () => {
  test("no file, export or dependency is unused", { timeout: TEST_MS_MAX }, () => {
    const knip = spawnSync(
      join(ROOT, "node_modules", ".bin", "knip"),
      [
        "--config",
        "tests/tidy/knip.json",
        "--no-progress",
        "--no-config-hints",
        "--include",
        "files,dependencies,unlisted,unresolved,exports,types,duplicates",
      ],
      { cwd: ROOT, encoding: "utf8" },
    );
    expect(`${knip.stdout}${knip.stderr}`.trim()).toBe("");
    expect(knip.status).toBe(0);
  });

  test("no check is switched off and no work is left as a note", () => {
    const files = [
      ...packageSources(),
      ...filesUnder("tests", (path) => path.endsWith(".ts") && path !== "tests/tidy/dead-code.test.ts"),
      ...filesUnder("tools", (path) => path.endsWith(".mjs")),
    ];
    const found = files.flatMap((file) =>
      file.text
        .split("\n")
        .flatMap((line, index) =>
          LEFTOVERS.some((pattern) => pattern.test(line)) ? [`${file.path}:${index + 1} ${line.trim()}`] : [],
        ),
    );
    expect(found).toEqual([]);
  });
});
