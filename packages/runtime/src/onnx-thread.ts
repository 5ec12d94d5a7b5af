// A thread that owns sessions of one device, seen from the thread that owns the sockets: run() never blocks the caller.
// Calls are answered in the order they were made.
import { Worker } from "node:worker_threads";
import { MoevieError, isReason } from "@moevie/contracts";

/** A tensor as bytes with type and shape. `data` on a SharedArrayBuffer crosses threads without a copy. */
export interface TensorView {
  readonly type: "float32" | "float16" | "int64" | "int32" | "bool";
  readonly dims: readonly number[];
  readonly data: Float32Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array;
}

export interface OnnxThreadOptions {
  /** For errors and logs. */
  readonly name: string;
  /** cpu, cuda:N or tensorrt:N. */
  readonly device: string;
  readonly intraOpThreads: number;
}

/** Tensors that stay in the thread between calls, by names the caller makes up. */
export interface HeldTensors {
  /** Input name -> name of a held tensor to feed. */
  readonly feed?: Readonly<Record<string, string>>;
  /** Output name -> name to hold it under instead of handing it over. */
  readonly keep?: Readonly<Record<string, string>>;
}

export type ThreadRequest =
  | { readonly id: number; readonly kind: "drop"; readonly held: readonly string[] }
  | { readonly id: number; readonly kind: "load"; readonly key: string; readonly model: Uint8Array }
  | { readonly id: number; readonly kind: "unload"; readonly key: string }
  | {
      readonly id: number;
      readonly kind: "run";
      readonly key: string;
      readonly feeds: Readonly<Record<string, TensorView>>;
      readonly fetches: readonly string[] | undefined;
      readonly held?: HeldTensors | undefined;
    };
export type ThreadAnswer =
  | { readonly id: number; readonly ok: true; readonly outputs: Record<string, TensorView>; readonly computeUs: number }
  | {
      readonly id: number;
      readonly ok: false;
      readonly reason: string;
      readonly message: string;
      readonly detail: string;
    };

interface Waiting {
  readonly resolve: (answer: { outputs: Record<string, TensorView>; computeUs: number }) => void;
  readonly reject: (error: MoevieError) => void;
}

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
  async run(
    key: string,
    feeds: Readonly<Record<string, TensorView>>,
    fetches?: readonly string[],
  ): Promise<Record<string, TensorView>> {
    return (await this.#ask({ id: this.#nextId++, kind: "run", key, feeds, fetches })).outputs;
  }

  /** As run, with the microseconds the graph itself took, and with tensors held in the thread. */
  timedRun(
    key: string,
    feeds: Readonly<Record<string, TensorView>>,
    fetches?: readonly string[],
    held?: HeldTensors,
  ): Promise<{ outputs: Record<string, TensorView>; computeUs: number }> {
    return this.#ask({ id: this.#nextId++, kind: "run", key, feeds, fetches, held });
  }

  /** Forgets held tensors. */
  async drop(held: readonly string[]): Promise<void> {
    await this.#ask({ id: this.#nextId++, kind: "drop", held });
  }

  async close(): Promise<void> {
    this.#die(new MoevieError("DRAINING", `The ${this.#name} thread was closed.`));
    await this.#thread.terminate();
  }

  #ask(request: ThreadRequest): Promise<{ outputs: Record<string, TensorView>; computeUs: number }> {
    if (this.#dead !== undefined) return Promise.reject(this.#dead);
    return new Promise((resolve, reject) => {
      this.#waiting.set(request.id, { resolve, reject });
      this.#thread.postMessage(request);
    });
  }

  #settle(answer: ThreadAnswer): void {
    const waiting = this.#waiting.get(answer.id);
    this.#waiting.delete(answer.id);
    if (answer.ok) waiting?.resolve(answer);
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
