// A clip's file: named after its prompt, refused early when it cannot be written, never half there.
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { chooseClipFile, saveClip, slugOf } from "./clip-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "clip-file-test-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const bytes = Buffer.from("a clip");
const sha256 = createHash("sha256").update(bytes).digest("hex");
const never = new AbortController().signal;
async function* chunks(): AsyncIterable<Uint8Array> {
  yield bytes.subarray(0, 2);
  yield bytes.subarray(2);
}

async function* broken(): AsyncIterable<Uint8Array> {
  yield bytes;
  await Promise.reject(new Error("gone"));
}

describe("the name of a clip", () => {
  it("is made of the prompt's words in any script", () => {
    expect(slugOf("A golden dog, runs!")).toBe("a-golden-dog-runs");
    expect(slugOf("一只狗 在海边")).toBe("一只狗-在海边");
    expect(slugOf("../../etc/passwd")).toBe("etc-passwd");
    expect(slugOf("!!!")).toBe("clip");
    expect(slugOf(`word ${"x".repeat(500)}`)).toBe("word");
    expect(slugOf("x".repeat(500))).toBe("x".repeat(40));
  });
});

describe("the file of a clip", () => {
  it.each([
    ["a folder", () => folder, "this is a folder"],
    ["a folder that is missing", () => join(folder, "no", "clip.mp4"), "there is no"],
    ["a file taken for a folder", () => join(folder, "file", "clip.mp4"), "allowed"],
    ["a device", () => "/dev/null", "device"],
    ["a full device", () => "/dev/full", "device"],
    ["a file that is read-only", () => join(folder, "kept"), "read-only"],
    ["an empty name", () => "", "the path of a file"],
    ["a place that takes no files", () => "/proc/clip.mp4", "cannot"],
  ])("is refused when it is %s, before anything is written", (_case, path, words) => {
    writeFileSync(join(folder, "file"), "");
    writeFileSync(join(folder, "kept"), "", { mode: 0o444 });
    expect(() => chooseClipFile(path(), "x.mp4")).toThrow(words);
    expect(readdirSync(folder)).toEqual(["file", "kept"]);
  });

  it("is written whole, and straight into its place", async () => {
    const target = chooseClipFile(join(folder, "clip.mp4"), "x.mp4");
    await saveClip(target, chunks(), { sha256, signal: never });
    expect(readFileSync(target)).toEqual(bytes);
    expect(readdirSync(folder)).toEqual(["clip.mp4"]);
  });

  it("may be staged elsewhere and leaves nothing there", async () => {
    const staging = join(folder, "staging");
    mkdirSync(staging);
    await saveClip(join(folder, "clip.mp4"), chunks(), { sha256, stagingDir: staging, signal: never });
    expect([readdirSync(folder), readdirSync(staging)]).toEqual([["clip.mp4", "staging"], []]);
  });

  it("is what an error names, not the file it is staged in", async () => {
    const target = join(folder, "gone", "clip.mp4");
    await expect(saveClip(target, chunks(), { sha256, stagingDir: folder, signal: never })).rejects.toMatchObject({
      code: "ENOENT",
      path: target,
    });
    await expect(saveClip(target, chunks(), { sha256, signal: never })).rejects.toMatchObject({ path: target });
    expect(readdirSync(folder)).toEqual([]);
  });

  it("does not appear when it arrives damaged, breaks off or is interrupted", async () => {
    const target = join(folder, "clip.mp4");
    await expect(saveClip(target, chunks(), { sha256: "00", signal: never })).rejects.toThrow("damaged");
    await expect(saveClip(target, broken(), { signal: never })).rejects.toThrow("gone");
    await expect(saveClip(target, chunks(), { signal: AbortSignal.abort() })).rejects.toThrow("abort");
    expect(readdirSync(folder)).toEqual([]);
  });
});
