// The experts a shard holds where they work on rows: one graph a layer with the layer's slots side by side. A layer changes as a whole:
// a graph of its new slots is made beside the old one and takes its place between two calls.
import type { Bundle } from "@moevie/bundle";
import type { OnnxThread } from "@moevie/runtime";
import type { GraphThreads, HeldGraph } from "./held-graph.ts";
import type { HeldExperts, PreparedChange } from "./operations.ts";

/** One layer's experts, ascending, which is the order of the graph's segments. */
export interface HeldLayer {
  readonly layer: number;
  readonly experts: Uint16Array;
  readonly graph: HeldGraph;
}

export class HeldLayers implements HeldExperts {
  readonly #bundle: Bundle;
  readonly #hidden: number;
  readonly #threads: GraphThreads;
  readonly #layers = new Map<number, HeldLayer>();

  /** `hidden` is the width of a row. */
  constructor(bundle: Bundle, hidden: number, threads: GraphThreads) {
    this.#bundle = bundle;
    this.#hidden = hidden;
    this.#threads = threads;
  }

  /** What a shard starts with: all layers in one thread. Throws BUNDLE_CORRUPT, UNSUPPORTED or OUT_OF_MEMORY. */
  async load(experts: ReadonlyMap<number, readonly number[]>): Promise<void> {
    const thread = this.#threads.open();
    for (const [layer, list] of experts) this.#layers.set(layer, await this.#loadLayer(layer, list, thread));
  }

  of(layer: number): HeldLayer | undefined {
    return this.#layers.get(layer);
  }

  /** A session holds every weight as f32. */
  async neededBytes(_layer: number, experts: readonly number[]): Promise<number> {
    return experts.length === 0 ? 0 : (await this.#bundle.weightElements(`experts.${experts.length}`)) * 4;
  }

  async prepare(layer: number, experts: readonly number[]): Promise<PreparedChange> {
    const next = experts.length === 0 ? undefined : await this.#loadLayer(layer, experts);
    return {
      commit: () => {
        const before = this.#layers.get(layer);
        if (next === undefined) this.#layers.delete(layer);
        else this.#layers.set(layer, next);
        before?.graph.retire();
      },
      discard: () => next?.graph.retire(),
    };
  }

  /** Loads the layer and runs it on one row a slot. */
  async #loadLayer(layer: number, list: readonly number[], thread?: OnnxThread): Promise<HeldLayer> {
    const experts = Uint16Array.from(list).sort();
    const graph = await this.#threads.load(await this.#bundle.expertGraph(layer, [...experts]), thread);
    try {
      await graph.thread.run(graph.key, {
        rows: {
          type: "float32",
          dims: [experts.length, this.#hidden],
          data: new Float32Array(experts.length * this.#hidden),
        },
        counts: { type: "int64", dims: [experts.length], data: new BigInt64Array(experts.length).fill(1n) },
      });
    } catch (thrown) {
      graph.retire();
      throw thrown;
    }
    return { layer, experts, graph };
  }
}
