// A thread that owns sessions of one device, seen from the thread that owns the sockets: a run never blocks the caller.
// Calls are answered in the order they were made.
import { Worker } from "node:worker_threads";
import { MoevieError, isReason } from "@moevie/contracts";

/** A tensor as bytes with type and shape. `data` on a SharedArrayBuffer crosses threads without a copy. */
export interface TensorView {
  readonly type: "float32" | "float16" | "int64" | "int32" | "bool";
  readonly dims: readonly number[];
  readonly data: Float32Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array;
}

export type TensorViews = Readonly<Record<string, TensorView>>;

export interface OnnxThreadOptions {
  /** For errors and logs. */
  readonly name: string;
  /** cpu, cuda:N or tensorrt:N. */
  readonly device: string;
  readonly intraOpThreads: number;
}

/** A planned run, [id, plan, rows]: three numbers, because a message costs by what is in it. */
export type PlannedRun = readonly [id: number, plan: number, rows: number];

/** Requests with id 0 have no answer. */
export type ThreadRequest =
  | PlannedRun
  | { readonly id: number; readonly kind: "load"; readonly key: string; readonly model: Uint8Array }
  | { readonly id: number; readonly kind: "unload"; readonly key: string }
  | {
      readonly id: number;
      readonly kind: "plan";
      readonly plan: number;
      readonly key: string;
      readonly inputs: TensorViews;
      readonly outputs: TensorViews | undefined;
    }
  /** A plan, or what a row of runs has kept. */
  | { readonly id: number; readonly kind: "forget"; readonly what: number }
  | {
      readonly id: number;
      readonly kind: "run";
      readonly key: string;
      readonly feeds: TensorViews;
      readonly fetches: readonly string[] | undefined;
      /** The row of runs this one belongs to. */
      readonly row?: number | undefined;
    };

export interface GraphAnswer {
  readonly outputs: TensorViews;
  /** What the run itself took. */
  readonly computeUs: number;
}

export type ThreadAnswer =
  | readonly [id: number, computeUs: number]
  | ({ readonly id: number; readonly ok: true } & GraphAnswer)
  | {
      readonly id: number;
      readonly ok: false;
      readonly reason: string;
      readonly message: string;
      readonly detail: string;
    };

interface Waiting {
  readonly resolve: (answer: GraphAnswer) => void;
  readonly reject: (error: MoevieError) => void;
}

const NO_OUTPUTS: Record<string, TensorView> = {};

/** Sessions behind a message port. Create with `start`, end with `close`. */
export class OnnxThread {
  readonly #thread: Worker;
  readonly #name: string;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #dead: MoevieError | undefined;

  private constructor(thread: Worker, name: string) {
    this.#thread = thread;
    this.#name = name;
    thread.on("message", (answer: ThreadAnswer) => this.#settle(answer));
    thread.on("error", (error) =>
      this.#die(
        new MoevieError("INTERNAL", `The ${name} thread failed.`, {
          cause: error,
          detail: error instanceof Error ? (error.stack ?? error.message) : String(error),
        }),
      ),
    );
    thread.on("exit", (code) => this.#die(new MoevieError("INTERNAL", `The ${name} thread ended with ${code}.`)));
  }

  /** Starts the thread; the device is checked by the first load. */
  static start(options: OnnxThreadOptions): OnnxThread {
    const file = import.meta.url.endsWith(".ts") ? "./onnx-thread-main.ts" : "./onnx-thread-main.js";
    return new OnnxThread(
      new Worker(new URL(file, import.meta.url), { name: options.name, workerData: options }),
      options.name,
    );
  }

  /** Loads a graph under `key`; a graph already there is replaced. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING, OUT_OF_MEMORY. */
  async load(key: string, model: Uint8Array): Promise<void> {
    await this.#ask({ id: this.#nextId++, kind: "load", key, model });
  }

  async unload(key: string): Promise<void> {
    await this.#ask({ id: this.#nextId++, kind: "unload", key });
  }

  /** Runs a loaded graph. Feeds on ordinary buffers are copied to the thread, shared ones are not; outputs are handed over. */
  async run(key: string, feeds: TensorViews, fetches?: readonly string[]): Promise<Record<string, TensorView>> {
    return (await this.timedRun(key, feeds, fetches)).outputs;
  }

  /** As run, with the microseconds the run itself took. */
  timedRun(key: string, feeds: TensorViews, fetches?: readonly string[]): Promise<GraphAnswer> {
    return this.#ask({ id: this.#nextId++, kind: "run", key, feeds, fetches });
  }

  /**
   * Prepares a run that is made many times on the same memory. Every tensor lies in shared memory; a size of -1 stands for
   * the rows a run is told. Without `outputs`, the first run makes them (then no size may be -1).
   */
  plan(key: string, inputs: TensorViews, outputs?: TensorViews): GraphPlan {
    const plan = this.#nextId++;
    this.#tell({ id: 0, kind: "plan", plan, key, inputs, outputs });
    return new GraphPlan(
      (rows) => this.#ask([this.#nextId++, plan, rows]),
      () => this.#tell({ id: 0, kind: "forget", what: plan }),
      outputs,
    );
  }

  /** Begins a row of runs that hand tensors on without leaving the thread. To be ended. */
  row(): RunRow {
    const row = this.#nextId++;
    return new RunRow(
      (key, feeds) => this.#ask({ id: this.#nextId++, kind: "run", key, feeds, fetches: undefined, row }),
      () => this.#tell({ id: 0, kind: "forget", what: row }),
    );
  }

  async close(): Promise<void> {
    this.#die(new MoevieError("DRAINING", `The ${this.#name} thread was closed.`));
    await this.#thread.terminate();
  }

  #ask(request: ThreadRequest): Promise<GraphAnswer> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    return new Promise((resolve, reject) => {
      this.#waiting.set("id" in request ? request.id : request[0], { resolve, reject });
      this.#thread.postMessage(request);
    });
  }

  /** A request that has no answer: what goes wrong with it is told by the runs that need it. */
  #tell(request: ThreadRequest): void {
    if (this.#dead === undefined) this.#thread.postMessage(request);
  }

  #settle(answer: ThreadAnswer): void {
    const planned = !("id" in answer);
    const id = planned ? answer[0] : answer.id;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (planned) waiting?.resolve({ outputs: NO_OUTPUTS, computeUs: answer[1] });
    else if (answer.ok) waiting?.resolve(answer);
    else
      waiting?.reject(
        new MoevieError(isReason(answer.reason) ? answer.reason : "INTERNAL", answer.message, {
          detail: answer.detail,
        }),
      );
  }

  #die(error: MoevieError): void {
    this.#dead ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#dead);
    this.#waiting.clear();
  }
}

/** Runs one after the other: the outputs `cache_out.NAME` of one stay where they are and are the inputs `cache.NAME` of the next. */
export class RunRow {
  /** As OnnxThread.timedRun, without the outputs that stay. */
  readonly timedRun: (key: string, feeds: TensorViews) => Promise<GraphAnswer>;
  readonly end: () => void;

  constructor(timedRun: RunRow["timedRun"], end: () => void) {
    this.timedRun = timedRun;
    this.end = end;
  }
}

/** A graph and the shared memory it reads and writes. A run copies nothing and makes no tensor but those sized by `rows`. */
export class GraphPlan {
  readonly #ask: (rows: number) => Promise<GraphAnswer>;
  readonly #forget: () => void;
  #outputs: TensorViews | undefined;

  constructor(ask: (rows: number) => Promise<GraphAnswer>, forget: () => void, outputs: TensorViews | undefined) {
    this.#ask = ask;
    this.#forget = forget;
    this.#outputs = outputs;
  }

  /** Whether the outputs are known: given, or made by a first run. */
  get known(): boolean {
    return this.#outputs !== undefined;
  }

  /** Where the answers lie; every run overwrites them. */
  get outputs(): TensorViews {
    if (this.#outputs === undefined)
      throw new MoevieError("INTERNAL", "A plan's outputs are known after its first run.");
    return this.#outputs;
  }

  /** Runs the graph; answers the microseconds the run itself took. Throws INTERNAL, OUT_OF_MEMORY. */
  async run(rows = 0): Promise<number> {
    const { outputs, computeUs } = await this.#ask(rows);
    this.#outputs ??= outputs;
    return computeUs;
  }

  /** Lets the thread forget the plan. */
  release(): void {
    this.#forget();
  }
}
