// Whether an evaluation of a whole denoiser fits in memory, before it begins: an estimate from its tokens and the model's widths.
import { MoevieError } from "@moevie/contracts";
import type { NoiseDenoiser } from "@moevie/bundle";

/** f32 values that an evaluation takes for each of its tokens, in widths of a token and of its feed-forward layer. */
const [WIDTHS_PER_TOKEN, INNER_WIDTHS_PER_TOKEN] = [8, 2.25];
const VALUE_BYTES = 4;
/** Asking the system takes a twentieth of a millisecond: not in every evaluation. */
const LOOK_MS = 1000;

export interface ShardMemory {
  /** Bytes that could be had now; Infinity where that is not known. */
  readonly free: number;
  /** Bytes this process has. */
  readonly own: number;
}

export class DenoiserRoom {
  readonly #tokenBytes: number;
  readonly #cells: number;
  readonly #look: () => ShardMemory;
  #seen: ShardMemory = { free: 0, own: 0 };
  #seenMs = -Infinity;

  constructor({ patch, width = 0, innerWidth = 0 }: NoiseDenoiser, look: () => ShardMemory) {
    this.#tokenBytes = (WIDTHS_PER_TOKEN * width + INNER_WIDTHS_PER_TOKEN * innerWidth) * VALUE_BYTES;
    this.#cells = patch.reduce((product, size) => product * size, 1);
    this.#look = look;
  }

  /**
   * For a latent [channels, frames, height, width] while the experts held have `weightBytes`: what else this process has is of earlier
   * evaluations, which ended. Throws OUT_OF_MEMORY with the bytes.
   */
  check([, ...sizes]: readonly number[], weightBytes: number): void {
    const tokens = Math.ceil(sizes.reduce((product, size) => product * size, 1) / this.#cells);
    const needed = Math.ceil(tokens * this.#tokenBytes);
    const { free, own } = this.#memory();
    const room = free + Math.max(0, own - weightBytes);
    if (needed > room)
      throw new MoevieError(
        "OUT_OF_MEMORY",
        `An evaluation of ${tokens} tokens takes about ${needed} bytes; this shard could have ${room} at most.`,
      );
  }

  #memory(): ShardMemory {
    const now = performance.now();
    if (now - this.#seenMs >= LOOK_MS) {
      this.#seen = this.#look();
      this.#seenMs = now;
    }
    return this.#seen;
  }
}
