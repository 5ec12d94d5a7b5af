// Holds the list of dependencies: pinned, each with a reason, none unused.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT, filesUnder } from "./source-files.ts";

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly scripts?: Readonly<Record<string, string>>;
}

/** The catalog of pnpm-workspace.yaml: name → version. */
function catalog(): ReadonlyMap<string, string> {
  const text = readFileSync(join(ROOT, "pnpm-workspace.yaml"), "utf8");
  const block = /^catalog:\n((?: {2}.*\n)+)/m.exec(text)?.[1] ?? "";
  return new Map([...block.matchAll(/^ {2}"?([^":]+)"?:\s*(\S+)$/gm)].map((match) => [match[1] ?? "", match[2] ?? ""]));
}

/** First column of the table in docs/dependencies.md. */
function documented(): string[] {
  const text = readFileSync(join(ROOT, "docs", "dependencies.md"), "utf8");
  return [...text.matchAll(/^\| `([^`]+)` \|[^|]+\|[^|]+\|$/gm)].map((match) => match[1] ?? "");
}

const manifests = ["package.json", "tests/package.json"]
  .map((path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }))
  .concat(filesUnder("packages", (path) => /^packages\/[^/]+\/package\.json$/.test(path)))
  .map(({ path, text }) => ({ path, manifest: JSON.parse(text) as Manifest }));
const uses = manifests.flatMap(({ path, manifest }) =>
  Object.entries({ ...manifest.dependencies, ...manifest.devDependencies }).map(([name, range]) => ({
    path,
    name,
    range,
  })),
);

describe("dependencies", () => {
  test("every one is documented with its reason, and nothing else is", () => {
    expect(documented().sort()).toEqual([...catalog().keys()].sort());
  });

  test("every version is exact and stands in the catalog alone", () => {
    expect([...catalog()].filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))).toEqual([]);
    expect(
      uses.filter(({ name, range }) => range !== (name.startsWith("@moevie/") ? "workspace:*" : "catalog:")),
    ).toEqual([]);
  });

  test("every catalog entry is used by a package", () => {
    expect([...catalog().keys()].filter((name) => !uses.some((use) => use.name === name))).toEqual([]);
  });

  test("no package of ours runs a script at install", () => {
    const scripts = ["preinstall", "install", "postinstall", "prepare"];
    expect(manifests.filter(({ manifest }) => scripts.some((name) => name in (manifest.scripts ?? {})))).toEqual([]);
  });

  test("every package has a type-checking project that the root project refers to", () => {
    const root = readFileSync(join(ROOT, "tsconfig.json"), "utf8");
    const packages = manifests
      .map(({ path }) => path.replace(/\/package\.json$/, ""))
      .filter((path) => existsSync(join(ROOT, path, "src")));
    expect(packages.filter((path) => !root.includes(`"${path}"`))).toEqual([]);
  });
});
