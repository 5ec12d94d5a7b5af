// The only file that imports onnxruntime-node. A session runs synchronously: this file is used inside an OnnxThread, never on
// a thread that owns sockets.
import { InferenceSession, Tensor, listSupportedBackends, type InferenceSession as Ort } from "onnxruntime-node";
import { MoevieError } from "@moevie/contracts";
import type { TensorView } from "./onnx-thread.ts";

export interface Device {
  readonly kind: "cpu" | "cuda" | "tensorrt";
  readonly index: number;
}

/** Parses cpu, cuda:N or tensorrt:N. Throws CONFIG_INVALID. */
export function parseDevice(text: string): Device {
  const match = /^(cpu|cuda:(\d+)|tensorrt:(\d+))$/.exec(text);
  if (match === null)
    throw new MoevieError("CONFIG_INVALID", `MOEVIE_DEVICE is "${text}"; allowed: cpu, cuda:N, tensorrt:N`);
  return { kind: text.split(":")[0] as Device["kind"], index: Number(match[2] ?? match[3] ?? 0) };
}

/** Execution providers this build of the runtime carries, by name. */
function availableProviders(): string[] {
  return listSupportedBackends().map((backend) => backend.name);
}

/** One graph on one device. Threads are explicit; outputs are new buffers. */
export class OnnxSession {
  readonly #session: Ort;
  readonly #outputs: readonly string[];

  private constructor(session: Ort) {
    this.#session = session;
    this.#outputs = session.outputNames;
  }

  /** Loads a graph from its bytes. A provider that is missing is DEVICE_MISSING, never a silent fall back to the CPU. */
  static async create(model: Uint8Array, device: Device, intraOpThreads: number): Promise<OnnxSession> {
    if (device.kind !== "cpu" && !availableProviders().includes(device.kind)) {
      throw new MoevieError(
        "DEVICE_MISSING",
        `MOEVIE_DEVICE is "${device.kind}:${device.index}"; this runtime has: ${availableProviders().join(", ")}`,
      );
    }
    const executionProviders = device.kind === "cpu" ? ["cpu"] : [{ name: device.kind, deviceId: device.index }];
    try {
      const session = await InferenceSession.create(model, {
        executionProviders,
        intraOpNumThreads: intraOpThreads,
        interOpNumThreads: 1,
        executionMode: "sequential",
        graphOptimizationLevel: "all",
        // Each session has threads of its own: spinning, those that ran last take the cores from those that run (141 ms a step of the starter
        // model where a router has two threads, 49 without).
        extra: { session: { intra_op: { allow_spinning: "0" } } },
        logSeverityLevel: 3,
      });
      return new OnnxSession(session);
    } catch (thrown) {
      throw loadError(thrown, device);
    }
  }

  /** Runs the graph; feeds by input name, answers every output or only `fetches`. What `carried` takes is no part of the answer. */
  async run(
    feeds: Readonly<Record<string, TensorView>>,
    fetches?: readonly string[],
    carried?: Carried,
  ): Promise<Record<string, TensorView>> {
    try {
      const given = { ...tensorsOf(feeds), ...carried?.give() };
      const answers = await this.#session.run(given, (fetches ?? this.#outputs) as string[]);
      return viewsOf(carried === undefined ? answers : carried.take(answers));
    } catch (thrown) {
      throw runError(thrown);
    }
  }

  /**
   * Runs the graph on tensors made before, `rows` standing for every size of -1. Where `prepared` has no outputs, they are
   * made in shared memory by this run, and every later one writes into them.
   */
  async runPrepared(prepared: PreparedRun, rows: number): Promise<void> {
    try {
      const { feeds, fetches } = prepared.tensors(rows);
      if (fetches === undefined) prepared.keepOutputs(await this.#session.run(feeds));
      else await this.#session.run(feeds, fetches);
    } catch (thrown) {
      throw runError(thrown);
    }
  }

  async release(): Promise<void> {
    await this.#session.release();
  }
}

/** What one run of a row hands on to the next. */
export class Carried {
  #tensors: Record<string, Tensor> = {};

  /** Gives them away: a run that fails ends its row. */
  give(): Record<string, Tensor> {
    const given = this.#tensors;
    this.#tensors = {};
    return given;
  }

  /** Keeps the answers that are meant for the next run, and returns the others. */
  take(answers: Ort.ReturnType): Record<string, Tensor> {
    const others: Record<string, Tensor> = {};
    for (const [name, tensor] of Object.entries(answers) as [string, Tensor][])
      if (name.startsWith("cache_out.")) this.#tensors[name.replace("cache_out.", "cache.")] = tensor;
      else others[name] = tensor;
    return others;
  }
}

/** The tensors of a run that is made many times. Those with a size of -1 are made anew by each run, the others once. */
export class PreparedRun {
  readonly #inputs: Readonly<Record<string, TensorView>>;
  #outputs: Readonly<Record<string, TensorView>> | undefined;
  readonly #feeds: Record<string, Tensor>;
  #fetches: Record<string, Tensor> | undefined;
  readonly #sized: boolean;

  constructor(inputs: Readonly<Record<string, TensorView>>, outputs?: Readonly<Record<string, TensorView>>) {
    this.#inputs = inputs;
    this.#outputs = outputs;
    this.#sized = [...Object.values(inputs), ...Object.values(outputs ?? {})].some(({ dims }) => dims.includes(-1));
    this.#feeds = this.#sized ? {} : tensorsOf(inputs);
    this.#fetches = this.#sized || outputs === undefined ? undefined : tensorsOf(outputs);
  }

  /** Where the answers lie, once they are known. */
  get outputs(): Readonly<Record<string, TensorView>> | undefined {
    return this.#outputs;
  }

  tensors(rows: number): { feeds: Record<string, Tensor>; fetches: Record<string, Tensor> | undefined } {
    if (!this.#sized) return { feeds: this.#feeds, fetches: this.#fetches };
    return { feeds: tensorsOf(this.#inputs, rows), fetches: this.#outputs && tensorsOf(this.#outputs, rows) };
  }

  /** Copies a first run's answers to shared memory, where later runs write theirs. */
  keepOutputs(answers: Ort.ReturnType): void {
    const outputs: Record<string, TensorView> = {};
    for (const [name, { type, dims, data }] of Object.entries(viewsOf(answers)))
      outputs[name] = shared(type, dims, data);
    this.#outputs = outputs;
    this.#fetches = tensorsOf(outputs);
  }
}

function shared(type: TensorView["type"], dims: readonly number[], from: TensorView["data"]): TensorView {
  const bytes = new Uint8Array(new SharedArrayBuffer(from.byteLength));
  bytes.set(new Uint8Array(from.buffer, from.byteOffset, from.byteLength));
  const Kind = from.constructor as new (buffer: SharedArrayBuffer) => TensorView["data"];
  return { type, dims, data: new Kind(bytes.buffer) };
}

function tensorsOf(views: Readonly<Record<string, TensorView>>, rows = -1): Record<string, Tensor> {
  const tensors: Record<string, Tensor> = {};
  for (const name in views) {
    const { type, dims, data } = views[name] as TensorView;
    if (!dims.includes(-1)) tensors[name] = new Tensor(type, data as Float32Array, dims as number[]);
    else {
      const sizes = dims.map((size) => (size === -1 ? rows : size));
      const count = sizes.reduce((product, size) => product * size, 1);
      tensors[name] = new Tensor(type, data.subarray(0, count) as Float32Array, sizes);
    }
  }
  return tensors;
}

function viewsOf(answers: Readonly<Record<string, Ort.ReturnType[string]>>): Record<string, TensorView> {
  const views: Record<string, TensorView> = {};
  for (const [name, tensor] of Object.entries(answers))
    views[name] = {
      type: tensor.type as TensorView["type"],
      dims: tensor.dims,
      data: tensor.data as TensorView["data"],
    };
  return views;
}

function runError(thrown: unknown): MoevieError {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  const bytes = /requested bytes?:? *(\d+)|of size (\d+)/i.exec(text);
  if (/bad_alloc|failed to allocate|out of memory|array buffer allocation failed/i.test(text))
    return new MoevieError(
      "OUT_OF_MEMORY",
      `The graph ran out of memory${bytes === null ? "" : ` asking for ${bytes[1] ?? bytes[2]} bytes`}.`,
      { detail: text },
    );
  return new MoevieError("INTERNAL", "A graph failed to run.", { detail: text, cause: thrown });
}

/** What is wrong with a device that is not the CPU, undefined where it is something else. */
function deviceProblem(text: string): string | undefined {
  const cuda = /CUDA (?:failure|error) (\d+): ([^;]+?) *;/i.exec(text);
  // Running out of its memory is no want of a device.
  if (cuda !== null && cuda[1] !== "2") return `CUDA refuses it with error ${cuda[1]}: ${cuda[2]}`;
  // The package lists cuda and tensorrt even where their provider libraries are absent.
  if (!/AppendExecutionProvider|shared library|providers_|Failed to load/i.test(text)) return undefined;
  return "its execution provider, or a library that this needs, is not on this machine; the runtime has named it on stderr";
}

function loadError(thrown: unknown, device: Device): MoevieError {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  const missing = device.kind === "cpu" ? undefined : deviceProblem(text);
  if (missing !== undefined)
    return new MoevieError("DEVICE_MISSING", `MOEVIE_DEVICE is "${device.kind}:${device.index}"; ${missing}`, {
      detail: text,
      cause: thrown,
    });
  const operator =
    /is not a registered function\/op|No Op registered for (\S+)|Could not find an implementation for (\S+)/i.exec(
      text,
    );
  if (operator !== null)
    return new MoevieError(
      "UNSUPPORTED",
      `The bundle uses an operator this runtime lacks${(operator[1] ?? operator[2]) ? `: ${operator[1] ?? operator[2]}` : ""}.`,
      { detail: text },
    );
  if (/bad_alloc|failed to allocate|out of memory/i.test(text))
    return new MoevieError("OUT_OF_MEMORY", "Loading a graph ran out of memory.", { detail: text });
  return new MoevieError("BUNDLE_CORRUPT", "A graph of the bundle cannot be loaded.", { detail: text, cause: thrown });
}
