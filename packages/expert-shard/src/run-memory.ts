// Memory of one run of a layer's graph, shared with the thread that runs it: rows and counts in, answers out. Every layer uses
// the same memory, one after the other; it grows to the largest run it has seen.
import { MoevieError } from "@moevie/contracts";
import type { GraphPlan } from "@moevie/runtime";
import type { GraphKeeper, HeldGraph } from "./held-graph.ts";
import type { HeldLayer } from "./held-layers.ts";

const CAPACITY_ROWS_MIN = 256;

export interface LayerRun {
  /** Rows in slot order, [total, d]. */
  readonly rows: Float32Array;
  /** Rows per slot, [slots]. */
  readonly counts: BigInt64Array;
  /** What the experts made of the rows, [total, d]. */
  readonly answers: Float32Array;
  /** Run with `total`. */
  readonly plan: GraphPlan;
}

export class RunMemory implements GraphKeeper {
  readonly #d: number;
  readonly #keptRowsMax: number;
  readonly #runs = new Map<HeldGraph, LayerRun>();
  #capacityRows = 0;
  #rows: Float32Array = new Float32Array();
  #answers: Float32Array = new Float32Array();

  /** `d` is the width of a row; memory for more than `keptRowsMax` rows is given back by `shrink`. */
  constructor(d: number, keptRowsMax: number) {
    this.#d = d;
    this.#keptRowsMax = keptRowsMax;
  }

  /** The memory for `total` rows of `layer`. What an earlier run left there is lost. Throws OUT_OF_MEMORY and stays as it was. */
  reserve(layer: HeldLayer, total: number): LayerRun {
    if (total > this.#capacityRows) this.#grow(total);
    let run = this.#runs.get(layer.graph);
    if (run === undefined) {
      run = this.#plan(layer);
      this.#runs.set(layer.graph, run);
      layer.graph.keepers.add(this);
    }
    return run;
  }

  /** The graph runs no more. */
  drop(graph: HeldGraph): void {
    this.#runs.get(graph)?.plan.release();
    this.#runs.delete(graph);
  }

  #grow(total: number): void {
    const capacityRows = 2 ** Math.ceil(Math.log2(Math.max(total, CAPACITY_ROWS_MIN)));
    const bytes = capacityRows * this.#d * 4;
    let made: [SharedArrayBuffer, SharedArrayBuffer];
    try {
      made = [new SharedArrayBuffer(bytes), new SharedArrayBuffer(bytes)];
    } catch (cause) {
      throw new MoevieError("OUT_OF_MEMORY", `The shard has no room for a run of ${2 * bytes} bytes.`, { cause });
    }
    this.#forget();
    this.#capacityRows = capacityRows;
    this.#rows = new Float32Array(made[0]);
    this.#answers = new Float32Array(made[1]);
  }

  /** Gives memory back that is larger than runs usually need. */
  shrink(): void {
    if (this.#capacityRows <= this.#keptRowsMax) return;
    this.#forget();
    this.#capacityRows = 0;
    this.#rows = this.#answers = new Float32Array();
  }

  #forget(): void {
    for (const { plan } of this.#runs.values()) plan.release();
    this.#runs.clear();
  }

  #plan({ experts, graph }: HeldLayer): LayerRun {
    const slots = experts.length;
    const counts = new BigInt64Array(new SharedArrayBuffer(slots * 8));
    const dims = [-1, this.#d];
    const plan = graph.thread.plan(
      graph.key,
      {
        rows: { type: "float32", dims, data: this.#rows },
        counts: { type: "int64", dims: [slots], data: counts },
      },
      { y: { type: "float32", dims, data: this.#answers } },
    );
    return { rows: this.#rows, counts, answers: this.#answers, plan };
  }
}
