// The project stands alone: nothing in it knows the machine it was written on, or needs more than package registries.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT, filesUnder } from "./source-files.ts";

const TEXT = /\.(ts|mjs|md|json|ya?ml|tpl|txt|proto|py|toml|sh)$|(^|\/)(moevie|run|Dockerfile|\.gitignore)$/;
const FOLDERS = ["packages", "tests", "tools", "docs", "helm", "deploy", "protos", ".ci"];

/** Absolute paths of somebody's machine. Containers have theirs under /app, /data, /models and /tmp. */
const PERSONAL_PATH = /(^|[\s"'`(=:])\/(work|root|home|Users|mnt|opt\/venv)\/[A-Za-z0-9_.-]+/;

const files = FOLDERS.flatMap((folder) => filesUnder(folder, (path) => TEXT.test(path)));
const rootFiles = ["README.md", "package.json", "pnpm-workspace.yaml", "moevie", "turbo.json", "vitest.config.ts"].map(
  (path) => ({ path, text: readFileSync(join(ROOT, path), "utf8") }),
);

describe("the project stands alone", () => {
  test("no file names a path of one machine", () => {
    const found = [...files, ...rootFiles].flatMap((file) =>
      file.text
        .split("\n")
        .flatMap((line, index) =>
          PERSONAL_PATH.test(line) ? [`${file.path}:${index + 1} ${line.trim().slice(0, 120)}`] : [],
        ),
    );
    expect(found).toEqual([]);
  });

  test("no source names a host but those of specifications and placeholders", () => {
    const hosts = /\bhttps?:\/\/(?!localhost|127\.0\.0\.1|\[::1\]|\$\{|%s|["'`])([a-z0-9.-]+)/gi;
    const allowed =
      /^(www\.)?(shard|onnx\.ai|github\.com|www\.apache\.org|turborepo\.com|json-schema\.org|cv\.iptc\.org|example\.(com|org))$/;
    const sources = files.filter((file) => /^packages\/[^/]+\/src\/.*\.ts$|^tools\/.*\.mjs$/.test(file.path));
    const found = sources.flatMap((file) =>
      [...file.text.matchAll(hosts)]
        .filter((match) => !allowed.test(match[1] ?? "") && !(match[1] ?? "").endsWith(".local"))
        .map((match) => `${file.path}: ${match[0]}`),
    );
    expect(found).toEqual([]);
  });

  test("the wrapper pins what it fetches by integrity", () => {
    const bootstrap = readFileSync(join(ROOT, "tools", "bootstrap.mjs"), "utf8");
    const pnpm = /PNPM_VERSION = "([^"]+)"/.exec(bootstrap)?.[1];
    expect(readFileSync(join(ROOT, "package.json"), "utf8")).toContain(`"packageManager": "pnpm@${pnpm}"`);
    expect(bootstrap.match(/sha512-[A-Za-z0-9+/]{86}==/g)?.length).toBeGreaterThanOrEqual(3);
  });
});
