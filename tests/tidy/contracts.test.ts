// The tables of contracts are whole: nothing in them is unused, nothing outside them is used, every name is well formed.
import { describe, expect, test } from "vitest";
import { ENVIRONMENT, ERRORS, LIMITS, METRICS } from "@moevie/contracts";
import { filesUnder, productionSources } from "./source-files.ts";

const sources = productionSources().filter(
  (file) => !/^packages\/contracts\/src\/(environment|errors|limits|metrics)\.ts$/.test(file.path),
);
const code = sources.map((file) => file.text).join("\n");
const limitsTable = productionSources().find((file) => file.path === "packages/contracts/src/limits.ts")?.text ?? "";
const related = (name: string): boolean => new RegExp(`limit\\("${name}"\\)`).test(limitsTable);
const mentioned = (name: string): boolean => new RegExp(`\\b${name}\\b`).test(code);

describe("the metric table", () => {
  test("every metric is recorded somewhere", () => {
    expect(Object.keys(METRICS).filter((name) => !mentioned(name))).toEqual([]);
  });

  test("counters end in _total, times in _seconds, and no gauge claims to be a counter", () => {
    const wrong = Object.entries(METRICS).filter(
      ([name, { kind }]) =>
        name.endsWith("_total") !== (kind === "counter") ||
        (kind === "histogram" && !/_(seconds|bytes|rows)$/.test(name)) ||
        !/^moevie_[a-z0-9_]+$/.test(name),
    );
    expect(wrong.map(([name]) => name)).toEqual([]);
  });

  test("no label can grow with the number of jobs", () => {
    const unbounded = Object.entries(METRICS).filter(([, { labels }]) =>
      (labels as readonly string[]).some((label) =>
        /^(job|video|id|request_id|prompt|tenant|trace_id|user)$/.test(label),
      ),
    );
    expect(unbounded.map(([name]) => name)).toEqual([]);
  });

  test("no label hides the one that names the process", () => {
    const hiding = Object.entries(METRICS).filter(([, { labels }]) =>
      (labels as readonly string[]).includes("service"),
    );
    expect(hiding.map(([name]) => name)).toEqual([]);
  });

  test("buckets ascend", () => {
    const specs = Object.entries(METRICS) as [string, { readonly buckets?: readonly number[] }][];
    expect(
      specs
        .filter(([, { buckets }]) => buckets?.some((bound, index) => index > 0 && bound <= (buckets[index - 1] ?? 0)))
        .map(([name]) => name),
    ).toEqual([]);
  });
});

describe("the other tables", () => {
  test("every environment variable is read by a config.ts", () => {
    const configs = sources
      .filter((file) => file.path.endsWith("/config.ts") && !file.path.startsWith("packages/cli/"))
      .map((file) => file.text)
      .join("\n");
    expect(Object.keys(ENVIRONMENT).filter((name) => !new RegExp(`\\b${name}\\b`).test(configs))).toEqual([]);
  });

  test("every variable that sources, chart and documents name is in the table", () => {
    const files = [
      ...sources,
      ...filesUnder("helm", () => true),
      ...filesUnder("docs", (path) => path.endsWith(".md")),
      ...filesUnder("deploy", () => true),
    ];
    const known = new Set([...Object.keys(ENVIRONMENT), "MOEVIE_CACHE", "MOEVIE_SERVER"]);
    const found = files.flatMap((file) =>
      [...file.text.matchAll(/\bMOEVIE_[A-Z][A-Z_]*[A-Z]\b/g)]
        .map((match) => match[0])
        .filter((name) => !known.has(name))
        .map((name) => `${file.path}: ${name}`),
    );
    expect([...new Set(found)]).toEqual([]);
  });

  test("every limit bounds something", () => {
    expect(Object.keys(LIMITS).filter((name) => !mentioned(name) && !related(name))).toEqual([]);
  });

  test("every reason is raised somewhere", () => {
    expect(Object.keys(ERRORS).filter((reason) => !mentioned(reason))).toEqual([]);
  });
});
