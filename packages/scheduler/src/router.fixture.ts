// A stand-in for a router: a model in one line of arithmetic, the protocol of the real one. Fixture only.
import type { DenoiseHead, DenoiseRequest, DenoiseResponse } from "@moevie/contracts";
import { implement, type GrpcService, type Loose } from "@moevie/runtime";

/** What a test may do while routers answer. */
export interface RouterHooks {
  /** Before each answer of a router; `call` counts from 1 over all routers. */
  denoise: (head: DenoiseHead, call: number) => Promise<void>;
  /** After each answer: false ends its stream there, as a router that goes away does. */
  streamGoesOn: (call: number) => boolean;
}

/** What all routers of a cluster saw, in order. */
export interface RouterLog {
  readonly hooks: RouterHooks;
  /** Heads of all evaluations whose context was there. */
  readonly denoiseHeads: DenoiseHead[];
  denoiseStreams: number;
  /** Variant of every context that was sent. */
  readonly contextVariants: string[];
}

/** What the stand-in model answers. */
export function velocityOf(latent: Float32Array, timestep: number, rows: Buffer, origin: number): Float32Array {
  const bias = rows.readFloatLE(0) + origin;
  return latent.map((value, i) => 0.6 * value + bias * 0.1 + timestep / 4000 + ((i % 5) - 2) * 0.05);
}

export class StandInRouter {
  /** Rows by hash. */
  readonly contexts = new Map<string, Buffer>();
  evaluations = 0;
  readonly #log: RouterLog;

  constructor(log: RouterLog) {
    this.#log = log;
  }

  service(): GrpcService {
    return implement("moevie.v1.DenoiseService", { Denoise: (requests) => this.#answer(requests) });
  }

  /** Evaluation after evaluation, as the router does. */
  async *#answer(requests: AsyncIterable<DenoiseRequest>): AsyncGenerator<Loose<DenoiseResponse>> {
    const log = this.#log;
    log.denoiseStreams++;
    const parts = requests[Symbol.asyncIterator]();
    for (let next = await parts.next(); next.done !== true; next = await parts.next()) {
      const { head } = next.value;
      if (head === undefined) throw new Error("a part without a head before it");
      const bytes = await gathered(parts, head.latent?.shape ?? []);
      let rows = this.contexts.get(head.contextHash);
      if (rows === undefined) {
        yield { contextMissing: { contextHash: head.contextHash } };
        const sent = await parts.next();
        const context = sent.done === true ? undefined : sent.value.context;
        if (context === undefined) throw new Error("another part than the context that was asked for");
        log.contextVariants.push(context.variant);
        rows = await gathered(parts, context.rows?.shape ?? []);
        this.contexts.set(context.contextHash, rows);
      }
      this.evaluations++;
      const call = log.denoiseHeads.push(head);
      await log.hooks.denoise(head, call);
      const velocity = velocityOf(floats(bytes), head.timestep, rows, head.origin);
      yield { head: { velocity: head.latent ?? {} } };
      const out = Buffer.from(velocity.buffer);
      yield { chunk: out.subarray(0, 100) };
      yield { chunk: out.subarray(100) };
      if (!log.hooks.streamGoesOn(call)) return;
    }
  }
}

/** The chunks of an f32 tensor of `shape`. */
async function gathered(parts: AsyncIterator<DenoiseRequest>, shape: readonly number[]): Promise<Buffer> {
  const total = shape.reduce((product, size) => product * size, 4);
  const chunks: Buffer[] = [];
  for (let bytes = 0; bytes < total; bytes += chunks.at(-1)?.length ?? 0) {
    const next = await parts.next();
    if (next.done === true || next.value.chunk === undefined) throw new Error(`${bytes} of ${total} bytes came`);
    chunks.push(next.value.chunk);
  }
  return Buffer.concat(chunks);
}

function floats(bytes: Buffer): Float32Array {
  return new Float32Array(new Uint8Array(bytes).buffer);
}
