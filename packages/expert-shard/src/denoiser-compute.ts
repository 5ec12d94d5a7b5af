// The experts a shard holds where each is a whole denoiser, and their answers: a latent through one of them, the velocity back. Calls take
// turns in order. Keeps nothing of a call once it is answered.
import { MoevieError } from "@moevie/contracts";
import { graphFor, type Bundle, type NoiseDenoiser } from "@moevie/bundle";
import type { DenoiserRequest, ExchangeAnswer } from "@moevie/fabric";
import type { OnnxThread, TensorViews } from "@moevie/runtime";
import type { DenoiserRoom } from "./denoiser-room.ts";
import type { GraphThreads, HeldGraph } from "./held-graph.ts";
import type { HeldExperts, PreparedChange } from "./operations.ts";

export class DenoiserCompute implements HeldExperts {
  readonly #bundle: Bundle;
  readonly #denoiser: NoiseDenoiser;
  readonly #threads: GraphThreads;
  readonly #device: string;
  readonly #room: DenoiserRoom;
  readonly #graphs = new Map<number, HeldGraph>();
  /** Of each expert that was ever loaded; a session holds every weight as f32. */
  readonly #weightBytes = new Map<number, number>();
  /** Settles with the call that runs last. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    bundle: Bundle,
    denoiser: NoiseDenoiser,
    parts: { readonly threads: GraphThreads; readonly device: string; readonly room: DenoiserRoom },
  ) {
    this.#bundle = bundle;
    this.#denoiser = denoiser;
    this.#threads = parts.threads;
    this.#device = parts.device;
    this.#room = parts.room;
  }

  /** What a shard starts with: all experts in one thread. Throws BUNDLE_CORRUPT, UNSUPPORTED or OUT_OF_MEMORY. */
  async load(experts: readonly number[]): Promise<void> {
    const thread = this.#threads.open();
    for (const expert of experts) this.#graphs.set(expert, await this.#loadExpert(expert, thread));
  }

  /** Throws OUT_OF_MEMORY, EXPERT_MISSING, INTERNAL for a graph that answers another shape than the latent's. */
  async answer({ rows, unit }: DenoiserRequest): Promise<ExchangeAnswer> {
    const { expert, timestep, shape, context, tokens } = unit;
    const graph = this.#graphs.get(expert);
    if (graph === undefined) throw new MoevieError("EXPERT_MISSING", `the shard does not hold denoiser ${expert}`);
    this.#room.check(
      shape,
      [...this.#graphs.keys()].reduce((sum, held) => sum + (this.#weightBytes.get(held) ?? 0), 0),
    );
    graph.use();
    const arrivedMs = performance.now();
    const turn = this.#last.then(() =>
      graph.thread.timedRun(graph.key, {
        latent: { type: "float32", dims: [1, ...shape], data: rows },
        timestep: { type: "float32", dims: [1], data: Float32Array.of(timestep) },
        context: { type: "float32", dims: [1, tokens, context.length / tokens], data: context },
      }),
    );
    this.#last = turn.catch(() => undefined);
    try {
      const { outputs, computeUs } = await turn;
      const partial = velocityOf(outputs, rows.length);
      const queueUs = Math.max(0, (performance.now() - arrivedMs) * 1000 - computeUs);
      return { partial, queueUs, computeUs };
    } finally {
      graph.done();
    }
  }

  /** Of the experts that are not there yet. */
  async neededBytes(_layer: number, experts: readonly number[]): Promise<number> {
    let bytes = 0;
    for (const expert of this.#missing(experts)) bytes += await this.#bytesOf(expert);
    return bytes;
  }

  async prepare(_layer: number, experts: readonly number[]): Promise<PreparedChange> {
    const added = new Map<number, HeldGraph>();
    const discard = (): void => {
      for (const graph of added.values()) graph.retire();
    };
    try {
      for (const expert of this.#missing(experts)) added.set(expert, await this.#loadExpert(expert));
    } catch (thrown) {
      discard();
      throw thrown;
    }
    return {
      commit: () => {
        for (const [expert, graph] of this.#graphs) {
          if (experts.includes(expert)) continue;
          this.#graphs.delete(expert);
          graph.retire();
        }
        for (const [expert, graph] of added) this.#graphs.set(expert, graph);
      },
      discard,
    };
  }

  async #bytesOf(expert: number): Promise<number> {
    const bytes = this.#weightBytes.get(expert) ?? (await this.#bundle.weightElements(this.#graphName(expert))) * 4;
    this.#weightBytes.set(expert, bytes);
    return bytes;
  }

  #missing(experts: readonly number[]): number[] {
    return experts.filter((expert) => !this.#graphs.has(expert));
  }

  #graphName(expert: number): string {
    const graph = this.#denoiser.graphs[expert];
    if (graph === undefined) throw new MoevieError("CONFIG_INVALID", `The bundle has no expert ${expert}.`);
    return graphFor(this.#bundle.manifest, graph, this.#device);
  }

  /** Loads the expert and runs it once, on a latent of one token. */
  async #loadExpert(expert: number, thread?: OnnxThread): Promise<HeldGraph> {
    const { latent, text } = this.#bundle.manifest;
    const dims = [1, latent.channels, ...this.#denoiser.patch];
    const values = dims.reduce((product, size) => product * size, 1);
    await this.#bytesOf(expert);
    const graph = await this.#threads.load(await this.#bundle.graph(this.#graphName(expert)), thread);
    try {
      const outputs = await graph.thread.run(graph.key, {
        latent: { type: "float32", dims, data: new Float32Array(values) },
        timestep: { type: "float32", dims: [1], data: Float32Array.of(500) },
        context: {
          type: "float32",
          dims: [1, text.maxTokens, text.width],
          data: new Float32Array(text.maxTokens * text.width),
        },
      });
      velocityOf(outputs, values);
    } catch (thrown) {
      graph.retire();
      throw thrown;
    }
    return graph;
  }
}

function velocityOf(outputs: TensorViews, values: number): Float32Array {
  const velocity = outputs["velocity"];
  if (velocity?.data instanceof Float32Array && velocity.data.length === values) return velocity.data;
  throw new MoevieError("INTERNAL", "The denoiser answered another shape than its latent's.", {
    detail: `[${velocity?.dims.join(", ")}], ${values} values were asked for`,
  });
}
