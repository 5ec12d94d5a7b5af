// Which evaluations run as one batch: those of different callers that have variant, shape, origin, text length and branch in common, and with
// few rows both branches of a job too. A call waits for others only while other callers are known, and a tenth of an evaluation at most.
// What an evaluation answers does not depend on who shares its batch.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { Metrics } from "@moevie/runtime";
import type { DenoiseInput, DenoiseOutput } from "./denoise.ts";

/** Of an evaluation's own time, what it may wait for others. */
const WAIT_RATIO = 0.1;
/** What a new evaluation time weighs in the moving average. */
const AVERAGE_WEIGHT = 0.2;

type Inputs = readonly [DenoiseInput, ...DenoiseInput[]];

export interface BatchOptions {
  /** Runs evaluations as one batch. */
  readonly run: (inputs: Inputs) => Promise<DenoiseOutput[]>;
  /** Rows an evaluation of this shape has. */
  readonly rowsOf: (shape: readonly number[]) => number;
  /** Evaluations like this one in a batch at most: 1 or more. */
  readonly batchMax: (input: DenoiseInput) => number;
  /** Below so many rows both branches run in one batch; from there on they take turns. */
  readonly branchRowsMin: number;
  /** Resolves after so many milliseconds, rejects on the signal. */
  readonly pause: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly metrics: Metrics;
}

interface Waiting {
  readonly caller: object;
  readonly input: DenoiseInput;
  readonly sinceMs: number;
  readonly resolve: (output: DenoiseOutput) => void;
  readonly reject: (error: unknown) => void;
}

/** Evaluations that could share a batch. */
interface Lane {
  readonly waiting: Waiting[];
  /** When each caller could ask again, by performance.now(): when it got its answer, or is to get it. */
  readonly callers: Map<object, number>;
  /** Moving average of an evaluation's milliseconds; 0: not known. */
  typicalMs: number;
  /** Of the wait for others, while there is one. */
  over: AbortController | undefined;
}

export class Batches {
  readonly #options: BatchOptions;
  readonly #lanes = new Map<string, Lane>();

  constructor(options: BatchOptions) {
    this.#options = options;
    options.metrics.declare(
      "moevie_router_evaluations_total",
      ["alone", "jobs", "branches"].map((company) => ({ company })),
    );
    options.metrics.declare("moevie_router_batch_wait_seconds_total");
  }

  /** `caller` asks for one evaluation at a time. Throws what Denoiser.run throws, CANCELLED and DEADLINE for this call alone. */
  run(input: DenoiseInput, caller: object): Promise<DenoiseOutput> {
    const lane = this.#lane(input);
    const now = performance.now();
    lane.callers.set(caller, now);
    return new Promise((resolve, reject) => {
      lane.waiting.push({ caller, input, sinceMs: now, resolve, reject });
      if (this.#complete(lane, now)) this.#start(lane);
      else if (lane.over === undefined) this.#startLater(lane);
    });
  }

  /** The caller asks for nothing more: nobody waits for it. */
  leave(caller: object): void {
    for (const [key, lane] of this.#lanes) {
      if (!lane.callers.delete(caller)) continue;
      if (lane.callers.size === 0 && lane.waiting.length === 0) this.#lanes.delete(key);
      else if (lane.waiting.length > 0 && this.#complete(lane, performance.now())) this.#start(lane);
    }
  }

  #lane({ graphs, shape, origin, context, branch }: DenoiseInput): Lane {
    const few = this.#options.rowsOf(shape) < this.#options.branchRowsMin;
    const key = [graphs, shape.join("x"), origin, context.tokens, few ? "" : branch].join("/");
    const known = this.#lanes.get(key);
    if (known !== undefined) return known;
    const lane: Lane = { waiting: [], callers: new Map(), typicalMs: 0, over: undefined };
    this.#lanes.set(key, lane);
    return lane;
  }

  /** Whether nobody is worth waiting for: no room is left, or no other caller is about to ask. */
  #complete({ waiting, callers, typicalMs }: Lane, now: number): boolean {
    const [first] = waiting;
    if (first === undefined || waiting.length >= this.#options.batchMax(first.input)) return true;
    const here = new Set(waiting.map(({ caller }) => caller));
    for (const [caller, readyMs] of callers)
      if (!here.has(caller) && readyMs - now <= typicalMs * WAIT_RATIO && now - readyMs <= typicalMs) return false;
    return true;
  }

  #startLater(lane: Lane): void {
    lane.over = new AbortController();
    void this.#options.pause(lane.typicalMs * WAIT_RATIO, lane.over.signal).then(
      () => this.#start(lane),
      () => undefined,
    );
  }

  #start(lane: Lane): void {
    lane.over?.abort();
    lane.over = undefined;
    for (let [next] = lane.waiting; next !== undefined; [next] = lane.waiting) {
      const batch = lane.waiting.splice(0, this.#options.batchMax(next.input));
      const [first, ...others] = batch.filter(({ input, reject }) => {
        if (input.signal.aborted) reject(new MoevieError("CANCELLED", "The call was cancelled."));
        return !input.signal.aborted;
      });
      if (first !== undefined) void this.#run(lane, [first, ...others]);
    }
  }

  async #run(lane: Lane, batch: readonly [Waiting, ...Waiting[]]): Promise<void> {
    const startMs = performance.now();
    this.#count(batch, startMs);
    this.#expect(lane, batch, startMs + lane.typicalMs);
    const shared = batch.length === 1 ? undefined : new SharedCall(batch.map(({ input }) => input));
    const inputs = batch.map(({ input }) => input) as unknown as Inputs;
    try {
      const outputs = await this.#options.run(shared === undefined ? inputs : shared.inputs);
      const tookMs = performance.now() - startMs;
      lane.typicalMs += (lane.typicalMs === 0 ? 1 : AVERAGE_WEIGHT) * (tookMs - lane.typicalMs);
      this.#expect(lane, batch, performance.now());
      batch.forEach(({ resolve, reject }, at) => {
        const ended = shared?.ended(at);
        if (ended === undefined) resolve(outputs[at] as DenoiseOutput);
        else reject(ended);
      });
    } catch (thrown) {
      await this.#failed(lane, batch, shared, thrown);
    } finally {
      shared?.close();
    }
  }

  /** A batch for which there is no room is run one by one, so that only what is too large by itself fails. */
  async #failed(lane: Lane, batch: readonly Waiting[], shared: SharedCall | undefined, thrown: unknown): Promise<void> {
    if (shared === undefined || asMoevieError(thrown).reason !== "OUT_OF_MEMORY") {
      batch.forEach(({ reject }, at) => reject(shared?.ended(at) ?? thrown));
      return;
    }
    for (const one of batch) await this.#run(lane, [one]);
  }

  /** The callers could ask again at `readyMs`, unless they left. */
  #expect({ callers }: Lane, batch: readonly Waiting[], readyMs: number): void {
    for (const { caller } of batch) if (callers.has(caller)) callers.set(caller, readyMs);
  }

  #count(batch: readonly Waiting[], startMs: number): void {
    const { metrics } = this.#options;
    const branches = new Set(batch.map(({ input }) => input.branch));
    const company = batch.length === 1 ? "alone" : branches.size === 1 ? "jobs" : "branches";
    metrics.add("moevie_router_evaluations_total", { company }, batch.length);
    const waitedMs = batch.reduce((sum, { sinceMs }) => sum + startMs - sinceMs, 0);
    metrics.add("moevie_router_batch_wait_seconds_total", {}, waitedMs / 1000);
  }
}

/** Signal and deadline of evaluations that share a batch: it goes on while one of them is wanted. */
class SharedCall {
  readonly inputs: Inputs;
  readonly #own: Inputs;
  readonly #over = new AbortController();

  constructor(inputs: readonly DenoiseInput[]) {
    this.#own = inputs as Inputs;
    const endMs = Math.max(...inputs.map((input) => input.endMs));
    this.inputs = inputs.map((input) => ({ ...input, endMs, signal: this.#over.signal })) as unknown as Inputs;
    for (const { signal } of inputs) signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Why the evaluation at this place is wanted no more. */
  ended(at: number): MoevieError | undefined {
    const { signal, endMs } = this.#own[at] as DenoiseInput;
    if (signal.aborted) return new MoevieError("CANCELLED", "The call was cancelled.");
    return performance.now() > endMs
      ? new MoevieError("DEADLINE", "The evaluation took longer than it may.")
      : undefined;
  }

  close(): void {
    for (const { signal } of this.#own) signal.removeEventListener("abort", this.#onAbort);
  }

  readonly #onAbort = (): void => {
    if (this.#own.every(({ signal }) => signal.aborted)) this.#over.abort();
  };
}
