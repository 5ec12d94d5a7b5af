// The Denoise streams of one job, one a branch and lane: evaluation after evaluation on the same stream, so that each stays with one
// router and pays for a call once. Several routers share the streams of a job between them. A stream that failed is left; the next
// evaluation opens another, as it does when the stream is old. Never retries.
import { MoevieError, limit, type DenoiseHead, type DenoiseRequest, type DenoiseResponse } from "@moevie/contracts";
import type { BidiCall, Clock, GrpcPeer, Loose } from "@moevie/runtime";
import type { Context } from "./encode.ts";
import { inSlices } from "./slices.ts";
import { TensorReader, bytesOf, chunksOf, f32Head, headAndChunks } from "./tensor-stream.ts";

type Router = GrpcPeer<"moevie.v1.DenoiseService">;
type Call = BidiCall<Loose<DenoiseRequest>, DenoiseResponse>;
/** What an evaluation is asked: all of it but what the tensor itself says. */
type Evaluation = Omit<DenoiseHead, "latent"> & { readonly latent: NonNullable<DenoiseHead["latent"]> };

/** What evaluates one window at a time: a stream for each branch. */
export type DenoiseLane = Readonly<Record<"conditional" | "unconditional", DenoiseStream>>;

/** Ends the wait for an evaluation's deadline: nobody reads it. */
const SETTLED = new MoevieError("CANCELLED", "The evaluation ended.");

/** A job's lanes: as many windows as there are lanes are evaluated side by side. */
export class DenoiseLanes {
  readonly all: readonly DenoiseLane[];

  /** `traceparent` is the job's. */
  constructor(router: Router, traceparent: string, clock: Clock, count: number) {
    const stream = (): DenoiseStream => new DenoiseStream(router, traceparent, clock);
    this.all = Array.from({ length: count }, () => ({ conditional: stream(), unconditional: stream() }));
  }

  close(): void {
    for (const { conditional, unconditional } of this.all) {
      conditional.close();
      unconditional.close();
    }
  }
}

/** One branch's stream: one evaluation at a time. */
class DenoiseStream {
  readonly #router: Router;
  readonly #traceparent: string;
  readonly #clock: Clock;
  #call: Call | undefined;
  /** By the clock, when the call was opened. */
  #openedMs = 0;

  constructor(router: Router, traceparent: string, clock: Clock) {
    this.#router = router;
    this.#traceparent = traceparent;
    this.#clock = clock;
  }

  /**
   * The velocity of `latent`, in its shape; the context goes along where the router asks for it. Throws what the router answers, PEER_UNAVAILABLE when the stream ended, DEADLINE
   * after `head.deadlineMs`, CANCELLED or the signal's reason, INTERNAL for values that are no numbers.
   */
  async evaluate(head: Evaluation, latent: Float32Array, context: Context, signal: AbortSignal): Promise<Float32Array> {
    signal.throwIfAborted();
    const call = this.#current();
    const onStop = (): void => call.cancel();
    signal.addEventListener("abort", onStop, { once: true });
    // Ends with the evaluation: a timer that outlived it would hold the call, and there are thousands within one deadline.
    const settled = new AbortController();
    let isLate = false;
    const onLate = (): void => {
      isLate = true;
      call.cancel();
    };
    void this.#clock.pause(head.deadlineMs, settled.signal).then(onLate, () => undefined);
    try {
      for await (const part of headAndChunks(head, bytesOf(latent))) await call.send(part);
      return await finite(await receive(call, head, context), head);
    } catch (thrown) {
      this.#call = undefined;
      call.cancel();
      signal.throwIfAborted();
      if (isLate) throw new MoevieError("DEADLINE", `The router did not answer in ${head.deadlineMs} ms.`);
      throw thrown;
    } finally {
      signal.removeEventListener("abort", onStop);
      settled.abort(SETTLED);
    }
  }

  close(): void {
    this.#call?.end();
    this.#call = undefined;
  }

  /** The stream, or another one when it is old: one whose connection was replaced shows no longer that its router is gone. */
  #current(): Call {
    if (this.#clock.monotonicMs() - this.#openedMs > limit("silenceMsMax")) this.close();
    return (this.#call ??= this.#open());
  }

  #open(): Call {
    this.#openedMs = this.#clock.monotonicMs();
    return this.#router.open("Denoise", { timeoutMs: limit("denoiseStreamMsMax"), traceparent: this.#traceparent });
  }
}

async function receive(call: Call, { latent, variant }: Evaluation, context: Context): Promise<Float32Array> {
  const velocity = new TensorReader(latent.shape);
  while (!velocity.whole) {
    const answer = await call.receive();
    if (answer === undefined) break;
    if (answer.head !== undefined) velocity.head(answer.head.velocity);
    else if (answer.chunk !== undefined) velocity.chunk(answer.chunk);
    else if (answer.contextMissing !== undefined) await sendContext(call, context, variant);
  }
  return velocity.end();
}

async function sendContext(call: Call, { hash, shape, rows }: Context, variant: string): Promise<void> {
  await call.send({ context: { contextHash: hash, rows: f32Head(shape), variant } });
  for (const chunk of chunksOf(rows)) await call.send({ chunk });
}

async function finite(values: Float32Array, { timestep, branch }: Evaluation): Promise<Float32Array> {
  let good = true;
  await inSlices(values.length, (start, end) => {
    for (let i = start; i < end && good; i++) good = Number.isFinite(values[i]);
  });
  if (good) return values;
  throw new MoevieError("INTERNAL", "The model gave values that are no numbers.", {
    detail: `timestep ${timestep}, ${branch}`,
  });
}
