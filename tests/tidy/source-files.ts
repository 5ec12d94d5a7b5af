// The files that the house rules look at, and what they import. Reads the tree as it lies; holds no rule itself.
import { readFileSync, readdirSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Folders that hold nothing of ours. */
const SKIPPED = new Set(["node_modules", ".cache", ".git", "dist", ".turbo", ".run", ".venv", "__pycache__"]);

export interface SourceFile {
  /** From the root, with forward slashes. */
  readonly path: string;
  readonly text: string;
}

/** Every file under `folder` (from the root) whose path passes, in path order. */
export function filesUnder(folder: string, passes: (path: string) => boolean): SourceFile[] {
  const found: string[] = [];
  const visit = (directory: string): void => {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (SKIPPED.has(entry.name)) continue;
      const full = join(directory, entry.name);
      if (entry.isDirectory()) visit(full);
      else if (entry.isFile()) found.push(relative(ROOT, full).split(sep).join("/"));
    }
  };
  visit(join(ROOT, folder));
  return found
    .filter(passes)
    .sort()
    .map((path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }));
}

/** Our TypeScript in packages/, generated code apart. */
export function packageSources(): SourceFile[] {
  return filesUnder("packages", (path) => /^packages\/[^/]+\/src\/.*\.m?ts$/.test(path) && !path.includes("/gen/"));
}

/** Same, without the tests and fixtures that lie beside the code. */
export function productionSources(): SourceFile[] {
  return packageSources().filter((file) => !/\.(test|fixture)\.ts$|\/fixtures\//.test(file.path));
}

/** The package a path belongs to, e.g. "router". */
export function packageOf(path: string): string {
  return path.split("/")[1] ?? "";
}

/** TypeScript without its comments; strings stay. Lines keep their numbers. */
export function withoutComments(text: string): string {
  const tokens = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;
  return text.replace(tokens, (token) => (token.startsWith("/") ? token.replace(/[^\n]/g, " ") : token));
}

export interface Import {
  readonly file: string;
  readonly specifier: string;
  /** False for `import type`, which leaves nothing behind at run time. */
  readonly runtime: boolean;
}

/** Static and dynamic imports and re-exports of a file. */
export function importsOf(file: SourceFile): Import[] {
  const code = withoutComments(file.text);
  const pattern =
    /\b(?:import|export)\s+(type\s)?[^"';]*?\bfrom\s*["']([^"']+)["']|\bimport\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/g;
  return [...code.matchAll(pattern)].map((match) => ({
    file: file.path,
    specifier: match[2] ?? match[3] ?? match[4] ?? "",
    runtime: match[1] === undefined,
  }));
}
