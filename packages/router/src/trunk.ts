// The dense part of the denoiser, one of it a variant: graphs in one thread. A batch of evaluations has memory of its own, shared with that
// thread: what a block writes there the next one reads, rows and the gate's choice are read in place, expert sums are written in place.
import { OnnxThread } from "@moevie/runtime";
import type { GraphPlan } from "@moevie/runtime";
import type { Bundle } from "@moevie/bundle";
import type { DenoiserContext } from "./context-cache.ts";
import { TrunkMemory } from "./trunk-memory.ts";
import type { TrunkInput } from "./trunk-memory.ts";

/** Memory of batches that ended, kept for the next ones of the same shape. */
const IDLE_BYTES_MAX = 268_435_456;

/** What a block hands to its experts. Valid until the next block of the call. */
export interface GatedRows {
  /** [items · tokens, d]. */
  readonly rows: Float32Array;
  /** [items · tokens, k]. */
  readonly ids: Int32Array;
  readonly weights: Float32Array;
}

/** Loads the graphs of every variant, whose names begin with `graphs`. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING or OUT_OF_MEMORY. */
export async function loadTrunk(
  bundle: Bundle,
  { graphs, layers }: { readonly graphs: readonly string[]; readonly layers: number },
  device: string,
  intraOpThreads: number,
): Promise<Trunk> {
  const thread = OnnxThread.start({ name: "trunk", device, intraOpThreads });
  const blocks = Array.from({ length: layers }, (_, index) => `block.${index}`);
  for (const prefix of graphs) {
    for (const piece of ["context", "entry", ...blocks, "head"])
      await thread.load(prefix + piece, await bundle.graph(prefix + piece));
  }
  return new Trunk(thread, layers);
}

export class Trunk {
  readonly layers: number;
  readonly #thread: OnnxThread;
  /** Oldest first. */
  readonly #idle: TrunkMemory[] = [];
  /** Of all calls so far. */
  #busyUs = 0;

  constructor(thread: OnnxThread, layers: number) {
    this.#thread = thread;
    this.layers = layers;
  }

  /** rows [tokens, width] of a text -> what the blocks of the variant whose graphs begin with `graphs` attend to. */
  async context(graphs: string, rows: Float32Array, tokens: number, width: number): Promise<DenoiserContext> {
    const outputs = await this.#thread.run(`${graphs}context`, {
      rows: { type: "float32", dims: [1, tokens, width], data: rows },
    });
    return { ctx: outputs["ctx"]?.data as Float32Array, tokens, pooled: outputs["pooled"]?.data as Float32Array };
  }

  /** Microseconds that graphs have run for all calls so far. */
  get busyUs(): number {
    return this.#busyUs;
  }

  /** Begins evaluations that run as one batch: same variant, shape, origin and text length. `end` it, whatever happens. */
  begin(inputs: readonly [TrunkInput, ...TrunkInput[]]): TrunkCall {
    const key = TrunkMemory.key(inputs);
    const at = this.#idle.findLastIndex((memory) => memory.key === key);
    const memory = at >= 0 ? this.#idle.splice(at, 1)[0] : undefined;
    return new TrunkCall(memory ?? new TrunkMemory(this.#thread, this.layers, inputs), inputs, {
      ran: (us) => (this.#busyUs += us),
      ended: (used) => this.#keep(used),
    });
  }

  close(): Promise<void> {
    return this.#thread.close();
  }

  #keep(memory: TrunkMemory): void {
    this.#idle.push(memory);
    let bytes = this.#idle.reduce((sum, idle) => sum + idle.bytes, 0);
    while (bytes > IDLE_BYTES_MAX) {
      const oldest = this.#idle.shift();
      bytes -= oldest?.bytes ?? bytes;
      oldest?.release();
    }
  }
}

/** What a call tells its trunk. */
interface CallEvents {
  readonly ran: (us: number) => void;
  readonly ended: (memory: TrunkMemory) => void;
}

/** One batch of evaluations. Call entry, then block 0 to the last, then head; then `end`, whatever happened. */
export class TrunkCall {
  readonly #memory: TrunkMemory;
  readonly #events: CallEvents;
  readonly #items: number;
  /** Time spent in graphs. */
  trunkUs = 0;

  constructor(memory: TrunkMemory, inputs: readonly TrunkInput[], events: CallEvents) {
    this.#memory = memory;
    this.#events = events;
    this.#items = inputs.length;
    memory.fill(inputs);
  }

  async entry(): Promise<void> {
    const ran = !this.#memory.entriesKnown;
    if (ran) await this.#run(this.#memory.firstEntry());
    if (ran && this.#items === 1) this.#memory.entries();
    else await Promise.all(this.#memory.entries().map((plan) => this.#run(plan)));
  }

  /** Block `index` up to its gate; it reads from `moe` what the block before got from its experts. */
  async block(index: number): Promise<GatedRows> {
    const plan = this.#memory.block(index);
    await this.#run(plan);
    const { rows, expert_ids: ids, expert_weights: weights } = plan.outputs;
    return {
      rows: rows?.data as Float32Array,
      ids: ids?.data as Int32Array,
      weights: weights?.data as Float32Array,
    };
  }

  /** Where the weighted sums of the last block's experts belong, [items · tokens, d]. */
  get moe(): Float32Array {
    return this.#memory.moe.data as Float32Array;
  }

  /** Each item's velocity, in the shape of its latent, in memory of its own. */
  async head(): Promise<Float32Array[]> {
    const plan = this.#memory.head();
    await this.#run(plan);
    const velocities = plan.outputs["velocity"]?.data as Float32Array;
    const one = velocities.length / this.#items;
    return Array.from({ length: this.#items }, (_, at) => velocities.slice(at * one, (at + 1) * one));
  }

  end(): void {
    this.#events.ended(this.#memory);
  }

  async #run(plan: GraphPlan): Promise<void> {
    const us = await plan.run();
    this.trunkUs += us;
    this.#events.ran(us);
  }
}
