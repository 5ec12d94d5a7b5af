// Flags of a clip: what is right becomes a spec, what is wrong is named with value and what is allowed.
import { describe, expect, it } from "vitest";
import { limit } from "@moevie/contracts";
import { UsageError } from "./failure.ts";
import { flagOfField, parseVideoSpec, parseWholeNumber } from "./video-flags.ts";

function problemsOf(prompt: string, flags: Record<string, string>): { flag: string; value: string; allowed: string }[] {
  try {
    parseVideoSpec(prompt, flags);
  } catch (error) {
    if (error instanceof UsageError) return [...error.problems];
    throw error;
  }
  return [];
}

describe("the flags of a clip", () => {
  it("leave out what was not given, so that the server's defaults hold", () => {
    expect(parseVideoSpec("a dog", {})).toEqual({
      prompt: "a dog",
      negativePrompt: "",
      size: "",
      sampler: "",
      grid: "",
      model: "",
      initialNoise: "",
      saveLatents: "",
      saveFrames: "",
      quality: "QUALITY_UNSPECIFIED",
    });
  });

  it("--no-color-correction turns it off; left out, the server's default holds", () => {
    expect(parseVideoSpec("a dog", { colorCorrection: false })).toMatchObject({ colorCorrection: false });
    expect(parseVideoSpec("a dog", { colorCorrection: true })).not.toHaveProperty("colorCorrection");
  });

  it("--exact is said only when it is given", () => {
    expect(parseVideoSpec("a dog", { exact: true })).toMatchObject({ exact: true });
    expect(parseVideoSpec("a dog", {})).not.toHaveProperty("exact");
  });

  it("become the fields of the spec", () => {
    const flags = {
      negative: "cats",
      seed: "9007199254740991",
      size: "640x384",
      seconds: "1.5",
      fps: "12",
      steps: "4",
      guidance: "2.5",
      sampler: "euler",
      quality: "draft",
      grid: "reference",
      guidanceLow: "3",
      boundary: "875",
      shift: "12",
      frames: "81",
    };
    expect(parseVideoSpec("一只狗\n", flags)).toEqual({
      prompt: "一只狗\n",
      negativePrompt: "cats",
      seed: Number.MAX_SAFE_INTEGER,
      size: "640x384",
      seconds: 1.5,
      fps: 12,
      steps: 4,
      guidance: 2.5,
      sampler: "euler",
      grid: "reference",
      guidanceLow: 3,
      boundary: 875,
      shift: 12,
      frames: 81,
      model: "",
      initialNoise: "",
      saveLatents: "",
      saveFrames: "",
      quality: "QUALITY_DRAFT",
    });
  });

  it.each([
    ["", {}, "PROMPT"],
    ["  \n", {}, "PROMPT"],
    ["x".repeat(100_000), {}, "PROMPT"],
    ["a\u0007b", {}, "PROMPT"],
    ["a\u0085b", {}, "PROMPT"],
    ["a", { negative: "\u001b[2J" }, "--negative"],
    ["a", { seed: "9007199254740992" }, "--seed"],
    ["a", { seed: "-1" }, "--seed"],
    ["a", { seed: "1.5" }, "--seed"],
    ["a", { seed: "" }, "--seed"],
    ["a", { seed: "0x10" }, "--seed"],
    ["a", { size: "1279x720" }, "--size"],
    ["a", { size: "16x16" }, "--size"],
    ["a", { size: "1280" }, "--size"],
    ["a", { size: "4096x4096" }, "--size"],
    ["a", { seconds: "-2" }, "--seconds"],
    ["a", { seconds: "0" }, "--seconds"],
    ["a", { seconds: "NaN" }, "--seconds"],
    ["a", { seconds: "Infinity" }, "--seconds"],
    ["a", { fps: "0" }, "--fps"],
    ["a", { steps: "1e9" }, "--steps"],
    ["a", { guidance: "-0.1" }, "--guidance"],
    ["a", { sampler: "dpm" }, "--sampler"],
    ["a", { quality: "best" }, "--quality"],
    ["a", { quality: "QUALITY_DRAFT" }, "--quality"],
  ])("refuse %j with %j", (prompt, flags, flag) => {
    expect(problemsOf(prompt, flags)).toEqual([
      expect.objectContaining({ flag, value: prompt === "a" ? Object.values(flags)[0] : prompt }),
    ]);
  });

  it("are all named when several are wrong, and long values are cut short", () => {
    const error = (() => {
      try {
        parseVideoSpec("y".repeat(100_000), { fps: "x" });
        return undefined;
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toBeInstanceOf(UsageError);
    const { message } = error as UsageError;
    expect(message.split("\n")).toHaveLength(2);
    expect(message).toContain(`(100000 characters); allowed: 1 to ${limit("promptCharactersMax")} characters`);
    expect(message).toContain(`--fps is "x"; allowed: a whole number from 1 to ${limit("fpsMax")}`);
    expect(message.length).toBeLessThan(400);
  });

  it("take whole numbers with a default", () => {
    expect(parseWholeNumber({}, "shards", "--shards", { min: 1, max: 8, default: 2 })).toBe(2);
    expect(parseWholeNumber({ shards: "4" }, "shards", "--shards", { min: 1, max: 8, default: 2 })).toBe(4);
    expect(() => parseWholeNumber({ shards: "9" }, "shards", "--shards", { min: 1, max: 8, default: 2 })).toThrow(
      '--shards is "9"; allowed: a whole number from 1 to 8',
    );
  });

  it("are found again for a field the server refuses", () => {
    expect(
      ["spec.size", "spec.quality", "spec.negative_prompt", "name", "page_token", "page_size", "cursor"].map((field) =>
        flagOfField({ field, description: "" }),
      ),
    ).toEqual(["--size", "--quality", "--negative", "VIDEO", "--page-token", "--page-size", "cursor"]);
  });
});
