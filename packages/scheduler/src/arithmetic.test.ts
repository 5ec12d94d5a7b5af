// The pure pieces: latent sizes, checkpoints, previews.
import { createHash } from "node:crypto";
import { inflateSync } from "node:zlib";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeCheckpoint, encodeCheckpoint, jobFingerprint } from "./checkpoint.ts";
import { MODEL, SHAPE, SPEC } from "./cluster.fixture.ts";
import { encodePng } from "./png.ts";
import { previewPng } from "./preview.ts";
import { latentShape, modelFrames, startLatent } from "./start-latent.ts";

describe("start-latent", () => {
  it("takes the smallest 4n+1 frames that cover the asked seconds", () => {
    expect([0.1, 1, 1.125, 1.126, 2, 2.5].map((seconds) => modelFrames(seconds, MODEL))).toEqual([1, 9, 9, 13, 17, 21]);
    expect(modelFrames(0.7, { ...MODEL, frameRate: 10 })).toBe(9);
    expect(latentShape(SPEC, MODEL)).toEqual(SHAPE);
    expect(() => latentShape({ ...SPEC, seconds: 1e7 }, MODEL)).toThrow(/bytes/);
  });

  it("is the same noise for the same seed", async () => {
    expect(await startLatent(SPEC, SHAPE, "")).toEqual(await startLatent({ ...SPEC, prompt: "other" }, SHAPE, ""));
    expect(await startLatent(SPEC, SHAPE, "")).not.toEqual(await startLatent({ ...SPEC, seed: 8 }, SHAPE, ""));
  });
});

describe("checkpoint", () => {
  const array = fc.float32Array({ minLength: 5, maxLength: 5 });
  const checkpoint = fc.record({
    fingerprint: fc.string(),
    step: fc.nat(),
    latent: array,
    sampler: fc.record({
      name: fc.constantFrom("unipc" as const, "dpmpp" as const, "euler" as const),
      warmUp: fc.nat(2),
      order: fc.nat(2),
      estimates: fc.array(array, { maxLength: 2 }),
      lastLatent: fc.option(array, { nil: undefined }),
    }),
  });

  it("comes back as it was, bit for bit", () => {
    fc.assert(
      fc.property(checkpoint, (state) => {
        expect(decodeCheckpoint(new Uint8Array(Buffer.concat(encodeCheckpoint(state))))).toEqual(state);
      }),
    );
  });

  it("of another build is nothing", () => {
    expect(decodeCheckpoint(Buffer.from("MVCX\0\0\0\0"))).toBeUndefined();
    expect(decodeCheckpoint(Buffer.from('MVCK\x0d\0\0\0{"version":1}'))).toBeUndefined();
    expect(decodeCheckpoint(new Uint8Array(0))).toBeUndefined();
  });

  it("names its job: everything that decides the latent is in the fingerprint", () => {
    const base = jobFingerprint(SPEC, "d", SHAPE);
    const changed = [
      { seed: 8 },
      { steps: 9 },
      { guidance: 5 },
      { sampler: "euler" },
      { prompt: "b" },
      { negativePrompt: "c" },
    ];
    for (const change of changed) expect(jobFingerprint({ ...SPEC, ...change }, "d", SHAPE)).not.toBe(base);
    expect(jobFingerprint({ ...SPEC, fps: 30, width: 128 }, "d", SHAPE)).toBe(base);
    expect(jobFingerprint(SPEC, "e", SHAPE)).not.toBe(base);
    expect(jobFingerprint({ ...SPEC, quality: "draft" }, "d", SHAPE)).not.toBe(base);
    const { prompt, negativePrompt, seed, steps, guidance, sampler } = SPEC;
    const facts = [prompt, negativePrompt, seed, steps, guidance, sampler, "d", SHAPE];
    // Checkpoints of builds that had one quality stay good.
    expect(base).toBe(createHash("sha256").update(JSON.stringify(facts)).digest("hex"));
  });
});

/** Reads back what encodePng writes. */
function pixelsOf(png: Uint8Array): { width: number; height: number; rgb: Buffer } {
  const bytes = Buffer.from(png);
  const [width, height] = [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
  const dataBytes = bytes.readUInt32BE(33);
  const rows = inflateSync(bytes.subarray(41, 41 + dataBytes));
  const rowBytes = width * 3 + 1;
  return {
    width,
    height,
    rgb: Buffer.concat(Array.from({ length: height }, (_, y) => rows.subarray(y * rowBytes + 1, (y + 1) * rowBytes))),
  };
}

describe("previews", () => {
  it("are PNG files that hold the pixels given", () => {
    const rgb = Uint8Array.from({ length: 2 * 3 * 3 }, (_, i) => i * 14);
    expect(pixelsOf(encodePng(rgb, 2, 3))).toEqual({ width: 2, height: 3, rgb: Buffer.from(rgb) });
    expect(() => encodePng(rgb, 3, 3)).toThrow(RangeError);
  });

  it("show the clean latent of the middle frame in the model's colours", () => {
    const values = SHAPE.reduce((product, size) => product * size, 1);
    const latent = new Float32Array(values).fill(1);
    const velocity = new Float32Array(values).fill(2);
    const { width, height, rgb } = pixelsOf(previewPng({ latent, velocity, sigma: 0.25, shape: SHAPE }, MODEL));
    expect([width, height]).toEqual([192, 144]);
    // Clean is 1 - 0.25 * 2 = 0.5: colours 0.25, 0.25, 0.125 of [-1, 1].
    expect([...rgb.subarray(0, 3)]).toEqual([159, 159, 143]);
  });
});
