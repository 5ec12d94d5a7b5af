// Everything a user or a machine can get wrong ends with the right exit code and words, no stack trace, and nothing left running.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CliSession, type Finished } from "./cli-session.ts";

let session: CliSession;
beforeEach(() => {
  session = new CliSession();
});
afterEach(() => session.close());

/** It failed cleanly: code, words, no stack, nothing written or left. */
function expectClean(result: Finished, code: number, words: string | RegExp): void {
  expect(result.stderr).toMatch(words);
  expect(result.code).toBe(code);
  expect(result.stderr).not.toMatch(/^\s+at |node:internal/m);
  expect(session.leftovers()).toEqual([]);
  expect(readdirSync(session.work)).toEqual([]);
}

const SMALL = ["--size", "256x256", "--seconds", "0.5", "--steps", "2"];

describe("a wrong request", () => {
  it.each([
    ["an empty prompt", [""], 'PROMPT is ""; allowed: 1 to'],
    ["a prompt of 100,000 characters", ["x".repeat(100_000)], /PROMPT is .*100000 characters.*allowed: 1 to/],
    ["control characters", ["a\u0007dog"], /PROMPT is "a\\u0007dog"; allowed: .*no control characters/],
    ["a size that is not a multiple of 8", ["a", "--size", "1000x702"], '--size is "1000x702"; allowed: WIDTHxHEIGHT'],
    ["a size out of range", ["a", "--size", "16000x16000"], "--size is"],
    ["negative seconds", ["a", "--seconds", "-3"], '--seconds is "-3"; allowed'],
    ["an unknown sampler", ["a", "--sampler", "ddim"], '--sampler is "ddim"; allowed: unipc, dpmpp, euler'],
    [
      "a seed beyond 2^53",
      ["a", "--seed", "9007199254740993"],
      '--seed is "9007199254740993"; allowed: a whole number from 0 to 9007199254740991',
    ],
    ["an output that is a folder", ["a", "-o", "."], '-o is "."; allowed: the path of a file; this is a folder'],
    ["more shards than experts", ["a", "--shards", "65"], "--shards is"],
  ])("with %s is wrong use", async (_case, args, words) => {
    expectClean(await session.run("generate", ...args), 2, words);
  });

  it("that only the server can judge names the flag too", async () => {
    const bundle = await session.tinyBundle();
    expectClean(
      await session.run("generate", "a", "--model", bundle, "--shards", "5"),
      2,
      '--shards is "5"; allowed: 1 to 4',
    );
  });
});

async function damaged(damage: (bundle: string) => void): Promise<Finished> {
  const bundle = await session.tinyBundle();
  damage(bundle);
  return session.run("generate", "a", "--model", bundle, ...SMALL);
}
const weights = (): string => join(session.folder, "model", "transformer", "model.safetensors");

describe("a bundle", () => {
  it("whose file is missing is refused by name", async () => {
    expectClean(await damaged(() => rmSync(weights())), 1, /moevie: bundle: .*transformer\/model\.safetensors/);
  });

  it("whose file is cut short is refused by name", async () => {
    expectClean(
      await damaged(() => truncateSync(weights(), 5000)),
      1,
      /transformer\/model\.safetensors: is 5000 bytes long, expected \d+/,
    );
  });

  it("whose file was altered is refused by its hash", async () => {
    const result = await damaged(() => {
      const bytes = readFileSync(weights());
      bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1);
      writeFileSync(weights(), bytes);
    });
    expectClean(result, 1, /transformer\/model\.safetensors: has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}/);
  });

  it("without a manifest is refused", async () => {
    expectClean(await damaged((bundle) => rmSync(join(bundle, "manifest.json"))), 1, "manifest.json");
  });

  it("with an operator the runtime lacks is refused by the operator's name", async () => {
    const result = await damaged((bundle) => {
      const path = join(bundle, "graphs", "head.onnx");
      const bytes = readFileSync(path);
      // Field 4 of a node, its operator: tag 0x22, length, name.
      bytes.write("\u0022\u0005Sxlit", bytes.indexOf("\u0022\u0005Split", 0, "latin1"), "latin1");
      writeFileSync(path, bytes);
      correctManifest(bundle, "graphs/head.onnx", bytes);
    });
    expectClean(result, 1, "Sxlit");
  });

  it("without a draft refuses one by the flag and its own words", async () => {
    const bundle = await session.tinyBundle();
    const result = await session.run("generate", "a", "--model", bundle, ...SMALL, "--quality", "draft");
    expectClean(result, 2, 'moevie: --quality is "draft"; allowed: standard');
  });

  it("is left alone by inspect, which says what is wrong with it", async () => {
    const bundle = await session.tinyBundle();
    truncateSync(weights(), 5000);
    expectClean(await session.run("inspect", bundle), 1, "truncated");
  });
});

describe("a machine", () => {
  it("without the device is told which one is missing", async () => {
    const bundle = await session.tinyBundle();
    process.env["MOEVIE_DEVICE"] = "cuda:7";
    try {
      expectClean(await session.run("generate", "a", "--model", bundle, ...SMALL), 1, "cuda:7");
    } finally {
      delete process.env["MOEVIE_DEVICE"];
    }
  });

  it("with a setting that is wrong is told variable, value and what is allowed", async () => {
    const bundle = await session.tinyBundle();
    process.env["MOEVIE_WIRE_TYPE"] = "f8";
    try {
      expectClean(await session.run("generate", "a", "--model", bundle, ...SMALL), 1, /MOEVIE_WIRE_TYPE.*f8.*f32/);
    } finally {
      delete process.env["MOEVIE_WIRE_TYPE"];
    }
  });

  it("whose disk is full is told so", async () => {
    // A small disk of its own needs user namespaces: without them this case cannot be made, and says so.
    const mount = spawnSync("unshare", ["-rm", "mount", "-t", "tmpfs", "none", "/mnt"], { encoding: "utf8" });
    expect(`${mount.stderr}${mount.error?.message ?? ""}`).toBe("");
    const bundle = await session.tinyBundle();
    const command = session.startOnSmallDisk(600, "generate", "a", "--model", bundle, "--seconds", "4", "--steps", "2");
    expectClean(await command.finished, 1, /no room|no space|disk/i);
  });

  it("whose data folder is a file is told so", async () => {
    const data = join(session.folder, "jobs");
    writeFileSync(data, "");
    expectClean(await session.run("serve", "--grpc-port", "0", "--http-port", "0", "--data", data), 2, "--data is");
  });
});

/** Puts the new size and hash of a changed file into the manifest, as a careless author would. */
function correctManifest(bundle: string, path: string, bytes: Buffer): void {
  const file = join(bundle, "manifest.json");
  const manifest = JSON.parse(readFileSync(file, "utf8")) as {
    files: { path: string; bytes: number; sha256: string }[];
  };
  for (const entry of manifest.files) {
    if (entry.path === path)
      Object.assign(entry, { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") });
  }
  writeFileSync(file, JSON.stringify(manifest));
}
