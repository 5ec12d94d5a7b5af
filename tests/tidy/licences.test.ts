// Holds docs/licences.md: every dependency is in it with the licence it is installed under, and no licence comes in unseen.
import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT } from "./source-files.ts";

/** Licences that ask for their notices to be kept and for nothing more. */
const PERMISSIVE =
  /^\(?(Apache-2\.0|MIT|BSD-[23]-Clause|BSD|ISC|0BSD|BlueOak-1\.0\.0|Unlicense|Python-2\.0|CC0-1\.0|CC-BY-[34]\.0|MIT-0)( (OR|AND) .*)?\)?$/;

const page = readFileSync(join(ROOT, "docs", "licences.md"), "utf8");

/** Rows of a section's table: package → licence. */
function table(heading: string): ReadonlyMap<string, string> {
  const section = page.split(`## ${heading}\n`)[1]?.split("\n## ")[0] ?? "";
  return new Map(
    [...section.matchAll(/^\| `([^`]+)` \| ([^|]+?) \|/gm)].map((match) => [match[1] ?? "", match[2] ?? ""]),
  );
}

function catalog(): string[] {
  const text = readFileSync(join(ROOT, "pnpm-workspace.yaml"), "utf8");
  const block = /^catalog:\n((?: {2}.*\n)+)/m.exec(text)?.[1] ?? "";
  return [...block.matchAll(/^ {2}"?([^":]+)"?:\s*\S+$/gm)].map((match) => match[1] ?? "");
}

/** Every installed package: name → licences it declares, over its versions. */
function installed(): ReadonlyMap<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  const store = join(ROOT, "node_modules", ".pnpm");
  for (const path of globSync(["*/node_modules/*/package.json", "*/node_modules/@*/*/package.json"], { cwd: store })) {
    const { name, license } = JSON.parse(readFileSync(join(store, path), "utf8")) as {
      name?: string;
      license?: unknown;
    };
    if (name === undefined || name.startsWith("@moevie/")) continue;
    found.set(
      name,
      (found.get(name) ?? new Set<string>()).add(typeof license === "string" ? license : "none declared"),
    );
  }
  return found;
}

describe("licences", () => {
  const packages = installed();

  test("the project's own is there in full", () => {
    expect(existsSync(join(ROOT, "LICENSE"))).toBe(true);
    expect(readFileSync(join(ROOT, "LICENSE"), "utf8")).toContain("END OF TERMS AND CONDITIONS");
  });

  test("every direct dependency is listed, and nothing else is", () => {
    expect([...table("Direct dependencies").keys()].sort()).toEqual(catalog().sort());
  });

  test("every direct dependency is installed under the licence listed", () => {
    const wrong = [...table("Direct dependencies")].filter(([name, licence]) => !packages.get(name)?.has(licence));
    expect(wrong).toEqual([]);
  });

  test("an indirect dependency that asks for more than its notice is named", () => {
    const named = [...table("Indirect dependencies").keys()];
    const isNamed = (name: string): boolean => named.some((each) => name === each || name.startsWith(`${each}-`));
    const unseen = [...packages].filter(
      ([name, licences]) => ![...licences].every((each) => PERMISSIVE.test(each)) && !isNamed(name),
    );
    expect(unseen.map(([name, licences]) => `${name}: ${[...licences].join(", ")}`)).toEqual([]);
  });
});
