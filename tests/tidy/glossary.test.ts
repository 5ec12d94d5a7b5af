// One noun, one meaning: keeps the words that docs/GLOSSARY.md rules out from coming back, in names, texts and documents.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  ROOT,
  filesUnder,
  packageOf,
  packageSources,
  productionSources,
  withoutComments,
  type SourceFile,
} from "./source-files.ts";

interface Ban {
  readonly word: string;
  readonly instead: string;
  /** Texts of other people's interfaces that hold the word; taken out before the search. */
  readonly foreign?: RegExp;
  /** Files the ban does not reach, with the reason in the name of the set. */
  readonly skip?: (path: string) => boolean;
}

const isImporter = (path: string): boolean =>
  packageOf(path) === "importer" || packageOf(path) === "bundle" || path.startsWith("tests/");

const BANS: readonly Ban[] = [
  { word: "task", instead: "job" },
  {
    word: "worker",
    instead: "shard, or thread for Node's own",
    foreign: /\bworker_threads\b|\bworkerData\b|\bnew Worker\b|\bWorker\b(?=[;,) }])/g,
  },
  { word: "solver", instead: "sampler", foreign: /\bsolver_(order|type|p)\b|dpmsolver\+\+|\bDPMSolver/g },
  { word: "backbone", instead: "trunk" },
  { word: "iteration", instead: "step" },
  { word: "scatter", instead: "dispatch", skip: isImporter },
];

/** Words of identifiers and prose alike: camelCase and snake_case fall apart into lower-case words. */
function wordsOf(text: string): Set<string> {
  const split = text
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/([A-Z]+)([A-Z][a-z])/g, "$1 $2")
    .replace(/_/g, " ");
  return new Set(split.toLowerCase().match(/[a-z]+/g) ?? []);
}

function offences(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) =>
    BANS.filter((ban) => ban.skip?.(file.path) !== true).flatMap((ban) =>
      file.text.split("\n").flatMap((line, index) => {
        const words = wordsOf(ban.foreign === undefined ? line : line.replace(ban.foreign, " "));
        const found = words.has(ban.word) || words.has(`${ban.word}s`);
        return found ? [`${file.path}:${index + 1} says ${ban.word}; the word is ${ban.instead}`] : [];
      }),
    ),
  );
}

describe("the glossary", () => {
  test("no synonym stands in the sources", () => {
    const tools = filesUnder("tools", (path) => path.endsWith(".mjs"));
    const tests = filesUnder("tests", (path) => path.endsWith(".ts") && !path.startsWith("tests/tidy/"));
    expect(offences([...packageSources(), ...tools, ...tests])).toEqual([]);
  });

  test("no synonym stands in protos, documents, chart and boards", () => {
    const documents = filesUnder("docs", (path) => path.endsWith(".md") && path !== "docs/GLOSSARY.md");
    const protos = filesUnder("protos/moevie", (path) => path.endsWith(".proto"));
    const chart = filesUnder("helm", (path) => /\.(ya?ml|tpl|txt|json)$/.test(path));
    const deploy = filesUnder("deploy", () => true);
    expect(offences([...documents, ...protos, ...chart, ...deploy])).toEqual([]);
  });

  test("the sampler and the noise schedule never borrow the scheduler's name in code", () => {
    const wrong = productionSources().filter(
      (file) => packageOf(file.path) === "diffusion" && /scheduler/i.test(withoutComments(file.text)),
    );
    expect(wrong.map((file) => file.path)).toEqual([]);
  });

  test("every banned word is explained in docs/GLOSSARY.md", () => {
    const glossary = readFileSync(join(ROOT, "docs", "GLOSSARY.md"), "utf8");
    expect(BANS.map((ban) => ban.word).filter((word) => !glossary.includes(word))).toEqual([]);
  });
});
