// The judge of `bench adherence` in plain loops: five small pictures of a clip to what they show and whether the subject is sound. Its
// weights come from packages/starter-model/training/export_judge.py; it has seen drawn clips only, never a model's.
import { readTensors, type Dense } from "../../parity/safetensors-file.ts";

export const JUDGED = { frames: 5, width: 72, height: 40 } as const;
const CONVOLUTIONS = 4;

export interface Verdict {
  /** Index of the value seen, for each attribute. */
  readonly seen: readonly number[];
  readonly sound: boolean;
}

export class Judge {
  readonly #weights: ReadonlyMap<string, Dense>;
  readonly #choices: readonly number[];

  /** `choices`: how many values each attribute has, in the judge's order. Throws SafetensorsError. */
  constructor(file: string, choices: readonly number[]) {
    this.#weights = readTensors(file);
    this.#choices = choices;
  }

  /** `pictures`: [5, 3, 40, 72] in [-1, 1]. */
  judge(pictures: Float32Array): Verdict {
    const logits = this.logits(pictures);
    let at = 0;
    const seen = this.#choices.map((count) => indexOfLargest(logits.subarray(at, (at += count))));
    return { seen, sound: indexOfLargest(logits.subarray(at)) === 0 };
  }

  /** Unnormalised, attribute after attribute, then sound and spoiled. */
  logits(pictures: Float32Array): Float32Array {
    const size = 3 * JUDGED.height * JUDGED.width;
    const parts = Array.from({ length: JUDGED.frames }, (_, frame) => {
      let plane: Plane = {
        data: pictures.subarray(frame * size, (frame + 1) * size),
        height: JUDGED.height,
        width: JUDGED.width,
      };
      for (let n = 0; n < CONVOLUTIONS; n++) plane = this.#convolve(`conv.${n}`, plane);
      return plane.data;
    });
    const features = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      features.set(part, at);
      at += part.length;
    }
    return this.#linear(
      "linear.1",
      this.#linear("linear.0", features).map((value) => Math.max(0, value)),
    );
  }

  /** 3x3, stride 2, padding 1, ReLU. */
  #convolve(name: string, { data, height, width }: Plane): Plane {
    const { shape, data: kernel } = this.#tensor(`${name}.weight`);
    const bias = this.#tensor(`${name}.bias`).data;
    const [outputs = 0, inputs = 0] = shape;
    const [rows, columns] = [Math.ceil(height / 2), Math.ceil(width / 2)];
    const out = new Float32Array(outputs * rows * columns);
    for (let o = 0; o < outputs; o++)
      for (let y = 0; y < rows; y++)
        for (let x = 0; x < columns; x++) {
          let sum = bias[o]!;
          for (let i = 0; i < inputs; i++)
            for (let ky = Math.max(0, 1 - 2 * y); ky < Math.min(3, height + 1 - 2 * y); ky++)
              for (let kx = Math.max(0, 1 - 2 * x); kx < Math.min(3, width + 1 - 2 * x); kx++)
                sum +=
                  kernel[((o * inputs + i) * 3 + ky) * 3 + kx]! *
                  data[(i * height + 2 * y + ky - 1) * width + 2 * x + kx - 1]!;
          out[(o * rows + y) * columns + x] = Math.max(0, sum);
        }
    return { data: out, height: rows, width: columns };
  }

  #linear(name: string, input: Float32Array): Float32Array {
    const { data: weight } = this.#tensor(`${name}.weight`);
    return this.#tensor(`${name}.bias`).data.map((bias, row) => {
      let sum = bias;
      for (let i = 0; i < input.length; i++) sum += weight[row * input.length + i]! * input[i]!;
      return sum;
    });
  }

  #tensor(name: string): Dense {
    const found = this.#weights.get(name);
    if (found === undefined) throw new Error(`the judge has no ${name}`);
    return found;
  }
}

interface Plane {
  readonly data: Float32Array;
  readonly height: number;
  readonly width: number;
}

function indexOfLargest(values: Float32Array): number {
  return values.indexOf(Math.max(...values));
}
