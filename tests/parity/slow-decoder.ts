// The causal video decoder in plain loops and float64 over a whole clip, without caches: the reference for the two graphs; and the
// latent upsampler likewise.
import type { Dense } from "./safetensors-file.ts";

/** [channels][height][width]. */
type Picture = number[][][];
type Weights = ReadonlyMap<string, Dense>;
export type DecoderFacts = {
  readonly mean: readonly number[];
  readonly std: readonly number[];
  readonly blocks: number;
  readonly temporal: number;
};

const silu = (picture: Picture): Picture =>
  picture.map((rows) => rows.map((row) => row.map((v) => v / (1 + Math.exp(-v)))));
const add = (a: Picture, b: Picture): Picture =>
  a.map((rows, c) => rows.map((row, y) => row.map((v, x) => v + b[c]![y]![x]!)));
const zeros = (like: Picture): Picture => like.map((rows) => rows.map((row) => row.map(() => 0)));

function conv(weights: Weights, name: string, input: Picture): Picture {
  const { shape, data } = weights.get(`${name}.weight`)!;
  const bias = weights.get(`${name}.bias`)!.data;
  const [out, channels, kernel] = shape as [number, number, number];
  const [height, width, pad] = [input[0]!.length, input[0]![0]!.length, (kernel - 1) / 2];
  return Array.from({ length: out }, (_, o) =>
    Array.from({ length: height }, (_, y) =>
      Array.from({ length: width }, (_, x) => {
        let sum = bias[o]!;
        for (let c = 0; c < channels; c++) {
          for (let ky = 0; ky < kernel; ky++) {
            for (let kx = 0; kx < kernel; kx++) {
              sum +=
                (input[c]![y + ky - pad]?.[x + kx - pad] ?? 0) *
                data[((o * channels + c) * kernel + ky) * kernel + kx]!;
            }
          }
        }
        return sum;
      }),
    ),
  );
}

/** PixelShuffle: channel c * f * f + dy * f + dx becomes pixel (dy, dx) of channel c. */
function shuffle(input: Picture, factor: number): Picture {
  const [height, width] = [input[0]!.length, input[0]![0]!.length];
  return Array.from({ length: input.length / factor ** 2 }, (_, c) =>
    Array.from({ length: height * factor }, (_, y) =>
      Array.from(
        { length: width * factor },
        (_, x) =>
          input[c * factor ** 2 + (y % factor) * factor + (x % factor)]![Math.floor(y / factor)]![
            Math.floor(x / factor)
          ]!,
      ),
    ),
  );
}

function framePicture(weights: Weights, features: Picture): Picture {
  const refine = (u: Picture, a: string, b: string): Picture =>
    add(u, conv(weights, b, silu(conv(weights, a, silu(u)))));
  let u = refine(shuffle(conv(weights, "up1", features), 2), "r1a", "r1b");
  u = refine(shuffle(conv(weights, "up2", u), 2), "r2a", "r2b");
  return shuffle(conv(weights, "out", u), 2);
}

/** Frames [3][H][W] in [-1, 1] of normalised latents [T] of [C][h][w]. */
export function slowDecode(weights: Weights, facts: DecoderFacts, latents: readonly Picture[]): Picture[] {
  const scaled = latents.map((latent) =>
    latent.map((rows, c) => rows.map((row) => row.map((v) => v * facts.std[c]! + facts.mean[c]!))),
  );
  const before = (list: readonly Picture[], t: number): Picture => list[t - 1] ?? zeros(list[0]!);
  let features = scaled.map((z, t) => conv(weights, "conv_in", [...before(scaled, t), ...z]));
  for (let block = 0; block < facts.blocks; block++) {
    const input = features;
    features = input.map((a, t) =>
      add(
        a,
        conv(
          weights,
          `res.${block}.conv2`,
          silu(conv(weights, `res.${block}.conv1`, silu([...before(input, t), ...a]))),
        ),
      ),
    );
  }
  return features.flatMap((a, t) => {
    const count = t === 0 ? 1 : facts.temporal;
    const expanded = conv(weights, t === 0 ? "head_first" : "head_next", a);
    const shortcut = conv(
      weights,
      t === 0 ? "skip_first" : "skip_next",
      t === 0 ? scaled[0]! : [...before(scaled, t), ...scaled[t]!],
    );
    const part = (list: Picture, frame: number): Picture =>
      list.slice((frame * list.length) / count, ((frame + 1) * list.length) / count);
    return Array.from({ length: count }, (_, frame) => {
      const picture = add(framePicture(weights, part(expanded, frame)), shuffle(part(shortcut, frame), 8));
      return picture.map((rows) => rows.map((row) => row.map((v) => Math.min(1, Math.max(-1, v)))));
    });
  });
}

/** One normalised latent frame [C][h][w] made finer, [C][2h][2w]. */
export function slowUpsample(weights: Weights, blocks: { coarse: number; fine: number }, z: Picture): Picture {
  const chain = (from: Picture, part: string, count: number): Picture =>
    Array.from({ length: count }, (_, block) => `${part}.${block}`).reduce(
      (a, at) => add(a, conv(weights, `${at}.conv2`, silu(conv(weights, `${at}.conv1`, silu(a))))),
      from,
    );
  const coarse = chain(conv(weights, "conv_in", z), "coarse", blocks.coarse);
  const fine = chain(shuffle(conv(weights, "up", silu(coarse)), 2), "fine", blocks.fine);
  return add(conv(weights, "out", silu(fine)), shuffle(conv(weights, "skip", z), 2));
}
