// Answers exchanges: rows through the layer's graph in the shard's thread, weighted sums back. While a graph runs, calls wait
// here; all that wait for the same layer then share one run. Keeps nothing of a call once it is answered.
import { MoevieError } from "@moevie/contracts";
import { BufferPool, weightedPartial } from "@moevie/fabric";
import type { ExchangeAnswer, ExchangeRequest } from "@moevie/fabric";
import type { OnnxThread } from "@moevie/runtime";
import { layerKey } from "./load-slots.ts";
import type { LayerSlots } from "./load-slots.ts";
import { placeRows, planMerge } from "./merge-calls.ts";

/** Calls that may wait for the thread; credits bound their bytes. */
const CALLS_WAITING_MAX = 1024;
/** Rows one run takes at most, so that no merge makes a call wait for long. */
const ROWS_PER_RUN_MAX = 65_536;
const POOL_BYTES_MAX = 67_108_864;

interface Waiting {
  readonly request: ExchangeRequest;
  readonly arrivedMs: number;
  readonly resolve: (answer: ExchangeAnswer) => void;
  readonly reject: (error: unknown) => void;
}

export class ExpertCompute {
  readonly #thread: OnnxThread;
  readonly #slots: LayerSlots;
  readonly #inputs = BufferPool.shared(POOL_BYTES_MAX);
  readonly #partials = BufferPool.plain(POOL_BYTES_MAX);
  readonly #waiting: Waiting[] = [];
  #running = false;

  constructor(thread: OnnxThread, slots: LayerSlots) {
    this.#thread = thread;
    this.#slots = slots;
  }

  /** Throws CREDITS_EXHAUSTED when too many calls wait, EXPERT_MISSING for a layer without slots. */
  answer(request: ExchangeRequest): Promise<ExchangeAnswer> {
    if (this.#waiting.length >= CALLS_WAITING_MAX) {
      return Promise.reject(new MoevieError("CREDITS_EXHAUSTED", `${CALLS_WAITING_MAX} calls wait for this shard`));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ request, arrivedMs: performance.now(), resolve, reject });
      if (!this.#running) void this.#runNext();
    });
  }

  /** Takes the call that waited longest and all others of its layer that fit one run. */
  #take(): Waiting[] {
    const first = this.#waiting.shift();
    if (first === undefined) return [];
    const group = [first];
    let rows = first.request.csr.rowIndex.length;
    for (let at = 0; at < this.#waiting.length;) {
      const { request } = this.#waiting[at] as Waiting;
      const entries = request.csr.rowIndex.length;
      if (
        request.layer === first.request.layer &&
        request.d === first.request.d &&
        rows + entries <= ROWS_PER_RUN_MAX
      ) {
        group.push(...this.#waiting.splice(at, 1));
        rows += entries;
      } else at++;
    }
    return group;
  }

  async #runNext(): Promise<void> {
    const group = this.#take();
    const first = group[0]?.request;
    if (first === undefined) return;
    this.#running = true;
    const startMs = performance.now();
    const { layer, d } = first;
    let input: SharedArrayBuffer | undefined;
    try {
      const experts = this.#slots.get(layer);
      if (experts === undefined) throw new MoevieError("EXPERT_MISSING", `no slot of layer ${layer} is on this shard`);
      const plan = planMerge(
        group.map((call) => call.request),
        experts,
      );
      const dims = [plan.total, d];
      input = this.#inputs.take(plan.total * d * 4);
      const rows = new Float32Array(input, 0, plan.total * d);
      group.forEach((call, at) => placeRows(call.request, plan.starts[at] as Uint32Array, d, rows));
      const run = this.#thread.timedRun(layerKey(layer), {
        rows: { type: "float32", dims, data: rows },
        counts: { type: "int64", dims: [experts.length], data: plan.counts },
      });
      const { outputs, computeUs } = await run;
      this.#running = false;
      void this.#runNext();
      const answers = outputs["y"]?.data as Float32Array;
      group.forEach((call, at) => {
        const queueUs = (startMs - call.arrivedMs) * 1000;
        call.resolve(this.#sum(call.request, answers, plan.starts[at] as Uint32Array, { queueUs, computeUs }));
      });
    } catch (thrown) {
      for (const call of group) call.reject(thrown);
      if (this.#running) {
        this.#running = false;
        void this.#runNext();
      }
    } finally {
      if (input !== undefined) this.#inputs.give(input);
    }
  }

  #sum(
    request: ExchangeRequest,
    answers: Float32Array,
    starts: Uint32Array,
    times: { queueUs: number; computeUs: number },
  ): ExchangeAnswer {
    const { n, d, csr } = request;
    const buffer = this.#partials.take(n * d * 4);
    const partial = new Float32Array(buffer, 0, n * d);
    weightedPartial(csr, answers, starts, d, partial);
    return { partial, ...times, release: () => this.#partials.give(buffer) };
  }
}
