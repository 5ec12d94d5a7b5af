// One evaluation of a Wan denoiser on the runtime, the ways it can be spread over two cores; and the linear layer both sides are held against.
import { join } from "node:path";
import type { Bundle } from "@moevie/bundle";
import { GraphBuilder, openWeightFile } from "@moevie/importer";
import { OnnxThread, type TensorView } from "@moevie/runtime";
import { writeTensors } from "../../parity/safetensors-file.ts";

export interface Evaluation {
  readonly latent: Float32Array;
  /** [channels, frames, height, width]. */
  readonly shape: readonly number[];
  /** Rows of each branch, [tokens, width] one after another. */
  readonly contexts: readonly Float32Array[];
  readonly tokens: number;
  readonly textWidth: number;
}

function f32(dims: readonly number[], data: Float32Array): TensorView {
  return { type: "float32", dims, data };
}

/** One session on a thread of its own. */
export class WanEngine {
  readonly #thread: OnnxThread;
  private constructor(thread: OnnxThread) {
    this.#thread = thread;
  }

  static async start(bundle: Bundle, graph: string, threads: number): Promise<WanEngine> {
    const thread = OnnxThread.start({ name: `${graph}-${threads}`, device: "cpu", intraOpThreads: threads });
    await thread.load("graph", await bundle.graph(graph));
    return new WanEngine(thread);
  }

  /** The velocity of the branches `contexts`, as one batch. */
  async evaluate({ latent, shape, contexts, tokens, textWidth }: Evaluation): Promise<Float32Array> {
    const batch = contexts.length;
    const latents = new Float32Array(batch * latent.length);
    const rows = new Float32Array(batch * tokens * textWidth);
    for (const [branch, context] of contexts.entries()) {
      latents.set(latent, branch * latent.length);
      rows.set(context, branch * tokens * textWidth);
    }
    const feeds = {
      latent: f32([batch, ...shape], latents),
      timestep: f32([batch], new Float32Array(batch).fill(500)),
      context: f32([batch, tokens, textWidth], rows),
    };
    return (await this.#thread.run("graph", feeds, ["velocity"]))["velocity"]!.data as Float32Array;
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}

/** Seconds of `work`. */
export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return (performance.now() - startMs) / 1000;
}

/** Rows, width before and width behind. */
export type LayerSize = readonly [rows: number, inner: number, columns: number];

/** One linear layer [rows, inner] x [columns, inner] -> [rows, columns] as the graphs have it. */
export class LinearLayer {
  readonly #thread: OnnxThread;
  readonly #feeds: Record<string, TensorView>;
  private constructor(thread: OnnxThread, feeds: Record<string, TensorView>) {
    this.#thread = thread;
    this.#feeds = feeds;
  }

  /** `scratch`: a folder for its weight. */
  static async start(scratch: string, threads: number, [rows, inner, columns]: LayerSize): Promise<LinearLayer> {
    const file = join(scratch, `linear-${threads}.safetensors`);
    const data = Float32Array.from({ length: columns * inner }, (_, i) => Math.sin(i));
    writeTensors(file, new Map([["layer.weight", { shape: [columns, inner], data }]]), "f32");
    const g = new GraphBuilder("linear");
    const x = g.input("x", "f32", ["rows", inner]);
    const weights = await openWeightFile(file, file.slice(1));
    g.output("y", g.gemm(weights, "layer", x, false), "f32", ["rows", columns]);
    const thread = OnnxThread.start({ name: `linear-${threads}`, device: "cpu", intraOpThreads: threads });
    await thread.load("graph", g.encode());
    return new LinearLayer(thread, { x: f32([rows, inner], new Float32Array(rows * inner).fill(0.5)) });
  }

  async run(): Promise<void> {
    await this.#thread.run("graph", this.#feeds, ["y"]);
  }

  close(): Promise<void> {
    return this.#thread.close();
  }
}
