// Step denoise-step: one evaluation of the denoiser, both branches at once, and guidance. The sampler's turn comes after it.
import { asMoevieError, limit, type Branch } from "@moevie/contracts";
import { guide } from "@moevie/diffusion";
import type { DenoiseStreams } from "./denoise-stream.ts";
import type { BranchContexts, Context } from "./encode.ts";
import { retriesOf, type JobRun } from "./job-run.ts";
import { retryPure } from "./retry.ts";
import type { LatentShape } from "./start-latent.ts";
import { f32Head, headAndChunks } from "./tensor-stream.ts";

export interface StepInput {
  readonly latent: Float32Array;
  readonly shape: LatentShape;
  readonly timestep: number;
  readonly contexts: BranchContexts;
  readonly streams: DenoiseStreams;
  readonly traceparent: string;
}

/** The guided velocity at this step, the shape of the latent. The latent is only read. */
export async function denoiseStep(run: JobRun, input: StepInput): Promise<Float32Array> {
  const { conditional, unconditional } = input.contexts;
  const abort = new AbortController();
  const signal = AbortSignal.any([run.held.signal, abort.signal]);
  try {
    const [guided, base] = await Promise.all([
      branchVelocity(run, input, "BRANCH_CONDITIONAL", conditional, signal),
      unconditional && branchVelocity(run, input, "BRANCH_UNCONDITIONAL", unconditional, signal),
    ]);
    if (base !== undefined) guide(guided, base, run.spec.guidance, guided);
    return guided;
  } catch (thrown) {
    // The other branch is of no use any more.
    abort.abort(thrown);
    throw thrown;
  }
}

function branchVelocity(
  run: JobRun,
  { latent, shape, timestep, streams, traceparent }: StepInput,
  branch: Branch,
  context: Context,
  signal: AbortSignal,
): Promise<Float32Array> {
  const latentHead = f32Head(shape);
  const head = { bundleDigest: run.model.digest, latent: latentHead, timestep, contextHash: context.hash, branch };
  const evaluate = (): Promise<Float32Array> =>
    streams.of(branch).evaluate({ ...head, deadlineMs: limit("denoiseCallMsMax"), traceparent }, latent, signal);
  return retryPure(
    async () => {
      try {
        return await evaluate();
      } catch (thrown) {
        if (asMoevieError(thrown).reason !== "CONTEXT_MISSING") throw thrown;
        await putContext(run, context, traceparent, signal);
        return await evaluate();
      }
    },
    retriesOf(run, "router", signal),
  );
}

async function putContext(run: JobRun, context: Context, traceparent: string, signal: AbortSignal): Promise<void> {
  const head = { contextHash: context.hash, rows: f32Head(context.shape) };
  const call = { signal, timeoutMs: limit("encodeCallMsMax"), traceparent };
  await run.peers.router.clientStream("PutContext", headAndChunks(head, context.rows), call);
}
