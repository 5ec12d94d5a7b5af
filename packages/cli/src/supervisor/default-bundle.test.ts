// The starter model's bundle: built once, found again, built anew when weights or importer change, never half there.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { defaultBundle } from "./default-bundle.ts";

let folder = "";
let builds = 0;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "default-bundle-test-"));
  builds = 0;
  mkdirSync(join(folder, "packages", "starter-model", "weights"), { recursive: true });
  mkdirSync(join(folder, "packages", "importer", "src"), { recursive: true });
  writeFileSync(join(folder, "packages", "starter-model", "weights", "model.safetensors"), "weights");
  writeImporter("writeFileSync(out + '/manifest.json', 'built')");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** An importer that makes the folder and does `work`. */
function writeImporter(work: string): void {
  const program = `import { mkdirSync, writeFileSync } from "node:fs"; const out: string = process.argv[4] ?? ""; mkdirSync(out); ${work};`;
  writeFileSync(join(folder, "packages", "importer", "src", "main.ts"), program);
}

function build(signal = new AbortController().signal): Promise<string> {
  const cacheDir = join(folder, "cache");
  return defaultBundle({
    root: folder,
    cacheDir,
    node: process.execPath,
    nodeArguments: [],
    environment: {},
    signal,
    onBuild: () => (builds += 1),
  });
}

describe("the starter model's bundle", () => {
  it("is built once and found again", async () => {
    const path = await build();
    expect(readFileSync(join(path, "manifest.json"), "utf8")).toBe("built");
    expect(await build()).toBe(path);
    expect(builds).toBe(1);
  });

  it("is built anew when the weights or the importer change", async () => {
    const paths = [await build()];
    writeFileSync(join(folder, "packages", "starter-model", "weights", "model.safetensors"), "other weights");
    paths.push(await build());
    writeImporter("writeFileSync(out + '/manifest.json', 'built better')");
    paths.push(await build());
    expect(new Set(paths).size).toBe(3);
    expect(builds).toBe(3);
  });

  it("does not appear when the importer fails, and the reason is told", async () => {
    writeImporter("console.error('tensor a is missing'); process.exit(1)");
    await expect(build()).rejects.toThrow("building the starter model's bundle failed (1): tensor a is missing");
    expect(readdirSync(join(folder, "cache", "bundles"))).toEqual([]);
  });

  it("does not appear when the user interrupts, and the importer is gone", async () => {
    const abort = new AbortController();
    writeImporter("setInterval(() => undefined, 1000)");
    const building = build(abort.signal);
    abort.abort();
    await expect(building).rejects.toThrow("interrupted");
    expect(readdirSync(join(folder, "cache", "bundles"))).toEqual([]);
  });

  it("keeps a few older ones and clears what dead commands left half built", async () => {
    mkdirSync(join(folder, "cache", "bundles", `${"0".repeat(24)}.999999999`), { recursive: true });
    for (let version = 0; version < 6; version++) {
      writeImporter(`writeFileSync(out + '/manifest.json', '${version}')`);
      await build();
    }
    const names = readdirSync(join(folder, "cache", "bundles"));
    expect(names).toHaveLength(4);
    expect(names).toContain(basename(await build()));
    expect(existsSync(join(folder, "cache", "bundles", `${"0".repeat(24)}.999999999`))).toBe(false);
  });

  it("is missed by name when there are no weights", async () => {
    rmSync(join(folder, "packages", "starter-model", "weights"), { recursive: true });
    await expect(build()).rejects.toThrow("weights are missing");
  });
});
