// Answers exchanges: rows through the layer's graph in the shard's thread, weighted sums back. Two runs may be under way, one
// in the graph and one laid out behind it; all calls that wait for the same layer then share one run. A call is answered by the graph its
// layer had when it came, whatever the layer has become since. Keeps nothing of a call once it is answered.
import { MoevieError } from "@moevie/contracts";
import { BufferPool, weightedPartial } from "@moevie/fabric";
import type { ExchangeAnswer, ExchangeRequest } from "@moevie/fabric";
import type { HeldLayer, HeldLayers } from "./held-layers.ts";
import { placeRows, planMerge } from "./merge-calls.ts";
import { RunMemory } from "./run-memory.ts";

/** Calls that may wait for the thread; credits bound their bytes. */
const CALLS_WAITING_MAX = 1024;
/** Rows one run takes at most, so that no merge makes a call wait for long. */
const ROWS_PER_RUN_MAX = 65_536;
const RUNS_IN_FLIGHT_MAX = 2;
/** Rows in and answers out of one call's entries: a small frame can name one row very many times. */
const RUN_BYTES_MAX = 2_147_483_648;
const POOL_BYTES_MAX = 67_108_864;

interface Waiting {
  readonly held: HeldLayer;
  readonly request: ExchangeRequest;
  readonly arrivedMs: number;
  readonly resolve: (answer: ExchangeAnswer) => void;
  readonly reject: (error: unknown) => void;
}

export class ExpertCompute {
  readonly #layers: HeldLayers;
  readonly #d: number;
  readonly #partials = new BufferPool(POOL_BYTES_MAX);
  readonly #waiting: Waiting[] = [];
  /** Memory of runs that are not under way. */
  readonly #free: RunMemory[];

  /** `d` is the width of a row. */
  constructor(layers: HeldLayers, d: number) {
    this.#layers = layers;
    this.#d = d;
    this.#free = Array.from({ length: RUNS_IN_FLIGHT_MAX }, () => new RunMemory(d, ROWS_PER_RUN_MAX));
  }

  /** Throws CREDITS_EXHAUSTED when too many calls wait, EXPERT_MISSING for a layer without slots, INVALID_FIELD for another width, OUT_OF_MEMORY. */
  answer(request: ExchangeRequest): Promise<ExchangeAnswer> {
    if (request.d !== this.#d)
      return Promise.reject(
        new MoevieError("INVALID_FIELD", `rows are ${request.d} wide, this model's are ${this.#d}`),
      );
    const bytes = request.csr.rowIndex.length * this.#d * 4 * 2;
    if (bytes > RUN_BYTES_MAX)
      return Promise.reject(
        new MoevieError("OUT_OF_MEMORY", `the call needs ${bytes} bytes to run, allowed are ${RUN_BYTES_MAX}`),
      );
    if (this.#waiting.length >= CALLS_WAITING_MAX)
      return Promise.reject(new MoevieError("CREDITS_EXHAUSTED", `${CALLS_WAITING_MAX} calls wait for this shard`));
    const held = this.#layers.of(request.layer);
    if (held === undefined)
      return Promise.reject(new MoevieError("EXPERT_MISSING", `no slot of layer ${request.layer} is on this shard`));
    held.graph.use();
    return new Promise((resolve, reject) => {
      this.#waiting.push({ held, request, arrivedMs: performance.now(), resolve, reject });
      this.#startRuns();
    });
  }

  #startRuns(): void {
    while (this.#free.length > 0) {
      const first = this.#waiting.shift();
      if (first === undefined) return;
      void this.#run(first.held, this.#take(first), this.#free.pop() as RunMemory);
    }
  }

  /** Takes the call that waited longest and all others of its graph that fit one run. */
  #take(first: Waiting): Waiting[] {
    const group = [first];
    let rows = first.request.csr.rowIndex.length;
    for (let at = 0; at < this.#waiting.length;) {
      const { held, request } = this.#waiting[at] as Waiting;
      const entries = request.csr.rowIndex.length;
      if (held === first.held && rows + entries <= ROWS_PER_RUN_MAX) {
        group.push(...this.#waiting.splice(at, 1));
        rows += entries;
      } else at++;
    }
    return group;
  }

  async #run(held: HeldLayer, group: readonly Waiting[], memory: RunMemory): Promise<void> {
    try {
      const { counts, starts, total } = planMerge(
        group.map((call) => call.request),
        held.experts,
      );
      const run = memory.reserve(held, total);
      run.counts.set(counts);
      group.forEach((call, at) => placeRows(call.request, starts[at] as Uint32Array, this.#d, run.rows));
      const computeUs = await run.plan.run(total);
      group.forEach((call, at) => {
        const partial = this.#sum(call.request, run.answers, starts[at] as Uint32Array);
        const queueUs = Math.max(0, (performance.now() - call.arrivedMs) * 1000 - computeUs);
        call.resolve({ ...partial, queueUs, computeUs });
      });
    } catch (thrown) {
      for (const call of group) call.reject(thrown);
    } finally {
      for (let calls = group.length; calls > 0; calls--) held.graph.done();
      memory.shrink();
      this.#free.push(memory);
      this.#startRuns();
    }
  }

  #sum(
    { n, csr, out }: ExchangeRequest,
    answers: Float32Array,
    starts: Uint32Array,
  ): Pick<ExchangeAnswer, "partial" | "release"> {
    if (out !== undefined) {
      weightedPartial(csr, answers, starts, this.#d, out);
      return { partial: out };
    }
    const buffer = this.#partials.take(n * this.#d * 4);
    const partial = new Float32Array(buffer, 0, n * this.#d);
    weightedPartial(csr, answers, starts, this.#d, partial);
    return { partial, release: () => this.#partials.give(buffer) };
  }
}
