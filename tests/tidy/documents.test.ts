// Documents stay true where a test can tell: the files they name exist, the steps of ARCHITECTURE.md are files, the tables agree.
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT, filesUnder } from "./source-files.ts";

const documents = [
  { path: "README.md", text: readFileSync(join(ROOT, "README.md"), "utf8") },
  ...filesUnder("docs", (path) => path.endsWith(".md")),
];
const read = (path: string): string => readFileSync(join(ROOT, path), "utf8");

describe("documents", () => {
  test("every link leads to a file", () => {
    const dead = documents.flatMap(({ path, text }) =>
      [...text.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)]
        .map((match) => match[1] ?? "")
        .filter((target) => !/^https?:/.test(target) && !existsSync(join(ROOT, dirname(path), target)))
        .map((target) => `${path}: ${target}`),
    );
    expect(dead).toEqual([]);
  });

  test("every file they name exists", () => {
    const named = /`((?:packages|tests|tools|helm|deploy|docs|protos)\/[A-Za-z0-9_./-]+)`/g;
    const missing = documents.flatMap(({ path, text }) =>
      [...text.matchAll(named)]
        .map((match) => match[1] ?? "")
        .filter((target) => !existsSync(join(ROOT, target)))
        .map((target) => `${path}: ${target}`),
    );
    expect(missing).toEqual([]);
  });

  test("every decision is in the index", () => {
    const index = read("docs/decisions/README.md");
    const decisions = filesUnder("docs/decisions", (path) => path.endsWith(".md") && !path.endsWith("README.md"));
    expect(
      decisions.filter(({ path }) => !index.includes(`(${path.split("/").pop()})`)).map(({ path }) => path),
    ).toEqual([]);
  });

  test("every command that README.md shows is one the CLI has", () => {
    const program = read("packages/cli/src/program.ts");
    const shown = [...read("README.md").matchAll(/\.\/moevie ([a-z]+)/g)].map((match) => match[1] ?? "");
    const unknown = shown.filter((name) => name !== "test" && !new RegExp(`["'\`]${name}\\b`).test(program));
    expect(unknown).toEqual([]);
  });

  test("every part of the chart's values has a comment above it and stands in the schema", () => {
    const schema = JSON.parse(read("helm/moevie/values.schema.json")) as { readonly properties: object };
    const lines = read("helm/moevie/values.yaml").split("\n");
    const parts = lines.flatMap((line, index) => {
      const name = /^([a-zA-Z]+):/.exec(line)?.[1];
      return name === undefined ? [] : [{ name, above: lines[index - 1] ?? "" }];
    });
    expect(parts.length).toBeGreaterThan(10);
    expect(parts.filter(({ name }) => !(name in schema.properties))).toEqual([]);
    // Two settings may share the comment of the first.
    const mute = parts.filter(({ above }) => !/^( *#|[a-zA-Z]+:)/.test(above));
    expect(mute.map(({ name }) => name)).toEqual([]);
  });
});
