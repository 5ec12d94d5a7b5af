// The denoiser's graphs against the slow float64 reference, and its pieces against the monolith, on tiny random weights.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openBundle } from "@moevie/bundle";
import { importStarter } from "@moevie/importer";
import { readTensors, type Dense } from "./safetensors-file.ts";
import { BundleSessions, f32, largestDifference, runMonolith, runPieces, scaleOf, type Denoised } from "./sessions.ts";
import { slowDit } from "./slow-dit.ts";
import { seeded, writeTinyModel, type TinyOptions, type TinySizes } from "./tiny.ts";

const PARITY = 1.5e-4;
const EXACTNESS = 1e-4;

const folder = mkdtempSync(join(tmpdir(), "moevie-parity-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function dense(shape: readonly number[], seed: number): Dense {
  const random = seeded(seed);
  return { shape, data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 2 * random()) };
}

/** Context rows whose last third is zero, as a short prompt's are. */
function contextRows(batch: number, sizes: TinySizes, seed: number): Dense {
  const rows = dense([batch, sizes.maxTokens, sizes.textWidth], seed);
  const kept = Math.floor((sizes.maxTokens * 2) / 3) * sizes.textWidth;
  for (let sample = 0; sample < batch; sample++)
    rows.data.fill(
      0,
      sample * sizes.maxTokens * sizes.textWidth + kept,
      (sample + 1) * sizes.maxTokens * sizes.textWidth,
    );
  return rows;
}

function expectSameChoices(a: Denoised, b: Denoised): void {
  for (const [layer, ids] of a.ids.entries()) {
    expect([...(ids.data as Int32Array)]).toEqual([...(b.ids[layer]!.data as Int32Array)]);
    expect(
      largestDifference(a.weights[layer]!.data as Float32Array, b.weights[layer]!.data as Float32Array),
    ).toBeLessThan(EXACTNESS);
  }
}

const MODELS: Record<string, TinyOptions> = {
  "two layers, four experts": {},
  "three layers, eight experts, top three, the starter's width": {
    layers: 3,
    experts: 8,
    topK: 3,
    width: 128,
    seed: 7,
    frames: 9,
  },
};

for (const [name, options] of Object.entries(MODELS)) {
  describe(name, () => {
    const source = join(folder, `${name} source`);
    let sizes: TinySizes;
    let sessions: BundleSessions;
    beforeAll(async () => {
      sizes = writeTinyModel(source, options);
      await importStarter(source, join(folder, `${name} bundle`));
      sessions = new BundleSessions(await openBundle(join(folder, `${name} bundle`), { verify: true }));
    });

    test("the monolith gives what the slow reference gives, for trained and longer clips, from the begin and from within", async () => {
      const weights = readTensors(join(source, "transformer", "model.safetensors"));
      for (const [frames, timestep, origin] of [
        [2, 999, 0],
        [4, 333, 7],
      ] as const) {
        const latent = dense([1, sizes.channels, frames, 6, 8], frames);
        const rows = contextRows(1, sizes, 5);
        const got = await runMonolith(sessions, latent, Float32Array.of(timestep), rows, origin);
        const matrix = Array.from({ length: sizes.maxTokens }, (_, i) => [
          ...rows.data.subarray(i * sizes.textWidth, (i + 1) * sizes.textWidth),
        ]);
        const want = slowDit(weights, sizes, latent, timestep, matrix, origin);
        expect(largestDifference(got.velocity.data as Float32Array, want.velocity)).toBeLessThan(
          PARITY * scaleOf(want.velocity),
        );
        for (const [layer, ids] of got.ids.entries())
          expect([...(ids.data as Int32Array)]).toEqual(want.ids[layer]!.flat());
        for (const [layer, shares] of got.weights.entries())
          expect(largestDifference(shares.data as Float32Array, want.weights[layer]!.flat())).toBeLessThan(PARITY);
      }
    });

    test("the pieces with experts between them give what the monolith gives", async () => {
      const latent = dense([2, sizes.channels, 3, 6, 8], 11);
      const rows = contextRows(2, sizes, 12);
      const timestep = Float32Array.of(700, 700);
      const whole = await runMonolith(sessions, latent, timestep, rows);
      const pieces = await runPieces(sessions, latent, timestep, rows);
      expect(largestDifference(pieces.velocity.data as Float32Array, whole.velocity.data as Float32Array)).toBeLessThan(
        EXACTNESS * scaleOf(whole.velocity.data as Float32Array),
      );
      expectSameChoices(pieces, whole);
    });

    test("a batch of two branches gives what each gives alone", async () => {
      const latent = dense([2, sizes.channels, 2, 6, 8], 21);
      const rows = contextRows(2, sizes, 22);
      const both = await runPieces(sessions, latent, Float32Array.of(500, 500), rows);
      const size = latent.data.length / 2;
      const rowSize = rows.data.length / 2;
      for (const sample of [0, 1]) {
        const alone = await runPieces(
          sessions,
          { shape: [1, ...latent.shape.slice(1)], data: latent.data.slice(sample * size, (sample + 1) * size) },
          Float32Array.of(500),
          { shape: [1, ...rows.shape.slice(1)], data: rows.data.slice(sample * rowSize, (sample + 1) * rowSize) },
        );
        const part = (both.velocity.data as Float32Array).subarray(sample * size, (sample + 1) * size);
        expect(largestDifference(part, alone.velocity.data as Float32Array)).toBeLessThan(EXACTNESS * scaleOf(part));
      }
    });

    test("an answer of an expert has the same bits whatever rows share the call", async () => {
      const random = seeded(3);
      const rows = Float32Array.from({ length: 1024 * sizes.width }, random);
      const run = async (from: number, count: number): Promise<Float32Array> => {
        const part = f32([count, sizes.width], rows.slice(from * sizes.width, (from + count) * sizes.width));
        return (await sessions.experts(0, [1, 0, 3], part, [0, count, 0])).data as Float32Array;
      };
      const whole = new Uint32Array((await run(0, 1024)).buffer);
      for (const [from, count] of [
        [0, 1],
        [5, 1],
        [1023, 1],
        [3, 2],
        [0, 7],
        [16, 16],
        [100, 31],
        [64, 65],
        [1, 300],
        [512, 512],
      ] as const) {
        const part = await run(from, count);
        const bits = new Uint32Array(part.buffer, part.byteOffset, part.length);
        expect(
          Buffer.compare(
            Buffer.from(bits.slice().buffer),
            Buffer.from(whole.slice(from * sizes.width, (from + count) * sizes.width).buffer),
          ),
        ).toBe(0);
      }
    });
  });
}
