// What a spec may ask for, field by field, and what it is told otherwise.
import { MoevieError, type VideoSpec } from "@moevie/contracts";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseVideoSpec, type ModelDefaults } from "./valid-video-spec.ts";
import { MODEL as PLAIN } from "./model.fixture.ts";

const MODEL: ModelDefaults = {
  ...PLAIN,
  name: "starter",
  variants: { standard: { steps: 12, guidance: 5 }, draft: { steps: 8, guidance: 1 } },
  sampler: "unipc",
  samplers: ["unipc", "dpmpp", "euler"],
  trained: { seconds: 2, width: 144, height: 80 },
};
const EMPTY: VideoSpec = {
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
};

function violations(spec: Partial<VideoSpec> | null): readonly { field: string; description: string }[] {
  try {
    parseVideoSpec(spec === null ? null : { ...EMPTY, ...spec }, MODEL);
    return [];
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(MoevieError);
    return (thrown as MoevieError).violations;
  }
}

test("what is left out comes from the bundle and the defaults", () => {
  const { spec, warnings } = parseVideoSpec(EMPTY, MODEL);
  expect(spec).toMatchObject({ prompt: "a dog", width: 1280, height: 720, seconds: 2, fps: 24 });
  expect(spec).toMatchObject({ steps: 12, guidance: 5, sampler: "unipc", model: "starter", quality: "standard" });
  expect(Number.isSafeInteger(spec.seed)).toBe(true);
  expect(warnings).toEqual([]);
  expect(parseVideoSpec({ ...EMPTY, seconds: 5 }, MODEL).warnings).toHaveLength(1);
  expect(parseVideoSpec({ ...EMPTY, size: "720x1280" }, MODEL).warnings).toEqual([
    "The model was trained on pictures of 144x80; 720x1280 shows the middle 31 % of them.",
  ]);
  for (const size of ["1280x720", "832x480", "1920x1080"])
    expect(parseVideoSpec({ ...EMPTY, size }, MODEL).warnings).toEqual([]);
});

test("a quality brings its own steps and guidance, and what is asked for beside it still wins", () => {
  const draft = { ...EMPTY, quality: "QUALITY_DRAFT" as const };
  expect(parseVideoSpec(draft, MODEL).spec).toMatchObject({ quality: "draft", steps: 8, guidance: 1 });
  const { spec } = parseVideoSpec({ ...draft, steps: 5, guidance: 3 }, MODEL);
  expect(spec).toMatchObject({ quality: "draft", steps: 5, guidance: 3 });
  const standard = parseVideoSpec({ ...EMPTY, quality: "QUALITY_STANDARD" }, MODEL).spec;
  expect(standard).toMatchObject({ quality: "standard", steps: 12, guidance: 5 });
});

test("a quality the model has not is refused, and one nobody knows", () => {
  const plain = { ...MODEL, variants: { standard: MODEL.variants.standard } };
  expect(() => parseVideoSpec({ ...EMPTY, quality: "QUALITY_DRAFT" }, plain)).toThrow(
    'spec.quality is "QUALITY_DRAFT"; allowed: QUALITY_STANDARD',
  );
  // What a later version's value is decoded to.
  expect(() => parseVideoSpec({ ...EMPTY, quality: 7 as never }, MODEL)).toThrow(
    "spec.quality is 7; allowed: QUALITY_STANDARD, QUALITY_DRAFT",
  );
});

describe("a wrong field is named with its value and what is allowed", () => {
  const cases: readonly [field: string, spec: Partial<VideoSpec>, value: RegExp, allowed: RegExp][] = [
    ["prompt", { prompt: "" }, /is ""/, /1 to 2000 characters/],
    ["prompt", { prompt: " \n " }, /is/, /1 to 2000 characters/],
    ["prompt", { prompt: "x".repeat(100_000) }, /100000 characters/, /2000/],
    ["prompt", { prompt: "a\u0007b" }, /U\+0007/, /control/],
    ["prompt", { prompt: "a\u0085b" }, /U\+0085/, /control/],
    ["negative_prompt", { negativePrompt: "a\u0000" }, /U\+0000/, /control/],
    ["size", { size: "1281x720" }, /1281x720/, /8.*32.*1920/],
    ["size", { size: "24x720" }, /24x720/, /32/],
    ["size", { size: "1936x720" }, /1936x720/, /1920/],
    ["size", { size: "big" }, /big/, /WIDTHxHEIGHT/],
    ["seconds", { seconds: 0 }, /is 0/, /above 0/],
    ["seconds", { seconds: -1 }, /is -1/, /above 0/],
    ["seconds", { seconds: 30.1 }, /30\.1/, /30/],
    ["seconds", { seconds: Number.NaN }, /NaN/, /above 0/],
    ["seconds", { seconds: 0.001 }, /0\.001/, /one frame/],
    ["fps", { fps: 0 }, /is 0/, /1 to 60/],
    ["fps", { fps: 61 }, /61/, /1 to 60/],
    ["steps", { steps: 0 }, /is 0/, /1 to 100/],
    ["steps", { steps: 101 }, /101/, /1 to 100/],
    ["guidance", { guidance: -0.1 }, /-0\.1/, /0 to 20/],
    ["guidance", { guidance: Number.POSITIVE_INFINITY }, /Infinity/, /0 to 20/],
    ["seed", { seed: 2 ** 53 }, /9007199254740992/, /2\^53 - 1/],
    ["sampler", { sampler: "ddim" }, /ddim/, /unipc, dpmpp, euler/],
    ["model", { model: "other" }, /other/, /starter/],
    ["grid", { grid: "karras" }, /karras/, /diffusers, reference/],
    ["shift", { shift: 0 }, /is 0/, /above 0/],
    ["frames", { frames: 0 }, /is 0/, /from 1 to/],
    ["frames", { frames: 17, seconds: 2 }, /17/, /nothing beside seconds/],
    ["frames", { frames: 16, exact: true }, /16/, /4n\+1 when exact, e\.g\. 13 or 17/],
    ["guidance_low", { guidanceLow: 3 }, /3/, /one noise level/],
    ["boundary", { boundary: 875 }, /875/, /one noise level/],
  ];
  test.each(cases)("%s: %j", (field, spec, value, allowed) => {
    const found = violations(spec);
    expect(found.map((violation) => violation.field)).toEqual([`spec.${field}`]);
    const [told, allowedTold] = found[0]?.description.split("; allowed: ") ?? [];
    expect(told).toMatch(value);
    expect(allowedTold).toMatch(allowed);
  });
  test("all wrong fields are named at once, and a missing spec too", () => {
    const found = violations({ prompt: "", size: "1x1", fps: 0, sampler: "x" });
    expect(found.map((violation) => violation.field).sort()).toEqual([
      "spec.fps",
      "spec.prompt",
      "spec.sampler",
      "spec.size",
    ]);
    expect(violations(null)).toHaveLength(1);
  });
});

describe("frames in place of seconds", () => {
  test("each is shown once, and what the model cannot make is rounded down and told", () => {
    const { spec, warnings } = parseVideoSpec({ ...EMPTY, frames: 16 }, MODEL);
    expect(spec).toMatchObject({ seconds: 13 / 8, fps: 8 });
    expect(warnings[0]).toBe("The model makes 4n+1 frames; 13 are made where 16 were asked for.");
    expect(parseVideoSpec({ ...EMPTY, frames: 17, fps: 24 }, MODEL)).toMatchObject({
      spec: { seconds: 17 / 8, fps: 24 },
    });
  });
});

describe("a model of two noise levels", () => {
  const model = {
    ...MODEL,
    boundary: 875,
    variants: { standard: { steps: 40, guidance: 4, guidanceLow: 3 } },
  };

  test("has a guidance for each and a boundary, its own or those asked for", () => {
    expect(parseVideoSpec(EMPTY, model).spec).toMatchObject({ guidance: 4, guidanceLow: 3, boundary: 875 });
    const asked = { ...EMPTY, guidance: 5, guidanceLow: 2, boundary: 900 };
    expect(parseVideoSpec(asked, model).spec).toMatchObject({ guidance: 5, guidanceLow: 2, boundary: 900 });
  });

  test("takes no others than numbers that can be", () => {
    expect(() => parseVideoSpec({ ...EMPTY, boundary: 1001 }, model)).toThrow(
      /spec.boundary is 1001; allowed: .* 0 to 1000/,
    );
    expect(() => parseVideoSpec({ ...EMPTY, guidanceLow: -1 }, model)).toThrow(/spec.guidance_low is -1; allowed/);
  });
});

test("every size on the grid is taken and every seed kept", () => {
  const side = fc.integer({ min: 32, max: 240 }).map((units) => units * 8);
  fc.assert(
    fc.property(side, side, fc.maxSafeNat(), (width, height, seed) => {
      const { spec } = parseVideoSpec({ ...EMPTY, size: `${width}x${height}`, seed }, MODEL);
      expect([spec.width, spec.height, spec.seed]).toEqual([width, height, seed]);
    }),
  );
});

test("a bundle's negative prompt holds where a request has none; a request's own goes before it", () => {
  const model = { ...MODEL, negativePrompt: "blurry" };
  expect(parseVideoSpec(EMPTY, model).spec.negativePrompt).toBe("blurry");
  expect(parseVideoSpec({ ...EMPTY, negativePrompt: "dark" }, model).spec.negativePrompt).toBe("dark");
  expect(parseVideoSpec(EMPTY, MODEL).spec.negativePrompt).toBe("");
});

test("a variant's own noise schedule is used for its own number of steps, else the bundle's grid", () => {
  const variants = { standard: { steps: 4, guidance: 1, sigmas: [1, 0.9375, 0.8333, 0.625] } };
  const model = { ...MODEL, variants };
  expect(parseVideoSpec(EMPTY, model).spec).toMatchObject({ grid: "explicit", steps: 4 });
  expect(parseVideoSpec({ ...EMPTY, steps: 8 }, model).spec.grid).toBe("diffusers");
  expect(parseVideoSpec({ ...EMPTY, grid: "reference" }, model).spec.grid).toBe("reference");
  expect(violations({ grid: "explicit" })).toMatchObject([{ field: "spec.grid" }]);
});

test("reference files are refused where the operator allows none, and by their names where he does", () => {
  expect(violations({ saveLatents: "a.safetensors" })).toMatchObject([{ field: "spec.save_latents" }]);
  const model = { ...MODEL, referenceAllowed: true };
  expect(parseVideoSpec({ ...EMPTY, saveLatents: "a.safetensors" }, model).spec.saveLatents).toBe("a.safetensors");
  for (const name of ["../a.safetensors", "a/b.safetensors", "a.bin", ".safetensors", `${"a".repeat(99)}.safetensors`])
    expect(() => parseVideoSpec({ ...EMPTY, initialNoise: name }, model)).toThrow(/initial_noise/);
});

test("a model that draws what is asked warns of more pixels than it was trained on, not of what is cut off", () => {
  const model: ModelDefaults = { ...MODEL, draws: "asked", trained: { seconds: 5, width: 1280, height: 720 } };
  expect(parseVideoSpec({ ...EMPTY, size: "720x1280" }, model).warnings).toEqual([]);
  expect(parseVideoSpec({ ...EMPTY, size: "1920x1080" }, model).warnings).toEqual([expect.stringContaining("larger")]);
});
