// Memory of one run of a layer's graph, shared with the thread that runs it: rows and counts in, answers out. Every layer uses
// the same memory, one after the other; it grows to the largest run it has seen.
import type { GraphPlan, OnnxThread } from "@moevie/runtime";
import { layerKey } from "./load-slots.ts";
import type { LayerSlots } from "./load-slots.ts";

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

export class RunMemory {
  readonly #thread: OnnxThread;
  readonly #slots: LayerSlots;
  readonly #d: number;
  readonly #runs = new Map<number, LayerRun>();
  #capacityRows = 0;
  #rows: Float32Array = new Float32Array();
  #answers: Float32Array = new Float32Array();

  constructor(thread: OnnxThread, slots: LayerSlots, d: number) {
    this.#thread = thread;
    this.#slots = slots;
    this.#d = d;
  }

  /** The memory for `total` rows of `layer`. What an earlier run left there is lost. */
  reserve(layer: number, total: number): LayerRun {
    if (total > this.#capacityRows) this.#grow(total);
    let run = this.#runs.get(layer);
    if (run === undefined) {
      run = this.#plan(layer);
      this.#runs.set(layer, run);
    }
    return run;
  }

  #grow(total: number): void {
    for (const { plan } of this.#runs.values()) plan.release();
    this.#runs.clear();
    this.#capacityRows = 2 ** Math.ceil(Math.log2(Math.max(total, CAPACITY_ROWS_MIN)));
    const bytes = this.#capacityRows * this.#d * 4;
    this.#rows = new Float32Array(new SharedArrayBuffer(bytes));
    this.#answers = new Float32Array(new SharedArrayBuffer(bytes));
  }

  #plan(layer: number): LayerRun {
    const slots = this.#slots.get(layer)?.length ?? 0;
    const counts = new BigInt64Array(new SharedArrayBuffer(slots * 8));
    const dims = [-1, this.#d];
    const plan = this.#thread.plan(
      layerKey(layer),
      {
        rows: { type: "float32", dims, data: this.#rows },
        counts: { type: "int64", dims: [slots], data: counts },
      },
      { y: { type: "float32", dims, data: this.#answers } },
    );
    return { rows: this.#rows, counts, answers: this.#answers, plan };
  }
}
