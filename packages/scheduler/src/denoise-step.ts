// Step denoise-step: one evaluation of the denoiser, both branches at once, and guidance. The sampler's turn comes after it.
import { MoevieError, asMoevieError, limit, type Branch } from "@moevie/contracts";
import { guide } from "@moevie/diffusion";
import type { BranchContexts, Context } from "./encode.ts";
import { retriesOf, type JobRun } from "./job-run.ts";
import { retryPure } from "./retry.ts";
import type { LatentShape } from "./start-latent.ts";
import { TensorReader, bytesOf, f32Head, headAndChunks } from "./tensor-stream.ts";

export interface StepInput {
  readonly latent: Float32Array;
  readonly shape: LatentShape;
  readonly timestep: number;
  readonly contexts: BranchContexts;
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
  input: StepInput,
  branch: Branch,
  context: Context,
  signal: AbortSignal,
): Promise<Float32Array> {
  return retryPure(
    async () => {
      try {
        return await callDenoise(run, input, branch, context, signal);
      } catch (thrown) {
        if (asMoevieError(thrown).reason !== "CONTEXT_MISSING") throw thrown;
        await putContext(run, context, input.traceparent, signal);
        return await callDenoise(run, input, branch, context, signal);
      }
    },
    retriesOf(run, "router", signal),
  );
}

async function callDenoise(
  run: JobRun,
  { latent, shape, timestep, traceparent }: StepInput,
  branch: Branch,
  context: Context,
  signal: AbortSignal,
): Promise<Float32Array> {
  const head = { bundleDigest: run.model.digest, latent: f32Head(shape), timestep, contextHash: context.hash, branch };
  const call = { signal, timeoutMs: limit("denoiseCallMsMax"), traceparent };
  const velocity = new TensorReader(shape);
  for await (const answer of run.peers.router.bidi("Denoise", headAndChunks(head, bytesOf(latent)), call)) {
    if (answer.head !== undefined) velocity.head(answer.head.velocity);
    else if (answer.chunk !== undefined) velocity.chunk(answer.chunk);
  }
  const values = velocity.end();
  if (!values.every((value) => Number.isFinite(value))) {
    throw new MoevieError("INTERNAL", "The model gave values that are no numbers.", {
      detail: `timestep ${timestep}, ${branch}`,
    });
  }
  return values;
}

async function putContext(run: JobRun, context: Context, traceparent: string, signal: AbortSignal): Promise<void> {
  const head = { contextHash: context.hash, rows: f32Head(context.shape) };
  const call = { signal, timeoutMs: limit("encodeCallMsMax"), traceparent };
  await run.peers.router.clientStream("PutContext", headAndChunks(head, context.rows), call);
}
