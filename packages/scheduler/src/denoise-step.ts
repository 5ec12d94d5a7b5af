// Step denoise-step: one evaluation of the denoiser for every window of the latent, both branches at once, then guidance; windows are
// blended into one velocity. The sampler's turn comes after it.
import { limit } from "@moevie/contracts";
import { blendWindow, cutWindow, guide, type LatentWindow } from "@moevie/diffusion";
import type { DenoiseLane, DenoiseLanes } from "./denoise-stream.ts";
import type { BranchContexts, Context } from "./encode.ts";
import { retriesOf, type JobRun } from "./job-run.ts";
import { retryPure } from "./retry.ts";
import { inSlices } from "./slices.ts";
import type { LatentShape } from "./start-latent.ts";
import { f32Head } from "./tensor-stream.ts";

export interface StepInput {
  readonly latent: Float32Array;
  readonly shape: LatentShape;
  readonly windows: readonly LatentWindow[];
  readonly timestep: number;
  readonly contexts: BranchContexts;
  readonly lanes: DenoiseLanes;
  readonly traceparent: string;
}

/** The guided velocity at this step, the shape of the latent. The latent is only read. */
export async function denoiseStep(run: JobRun, input: StepInput): Promise<Float32Array> {
  const { latent, shape, windows, lanes } = input;
  const abort = new AbortController();
  const signal = AbortSignal.any([run.held.signal, abort.signal]);
  const velocityOf = (window: LatentWindow, lane: DenoiseLane): Promise<Float32Array> =>
    windowVelocity(run, input, { window, lane, part: cutWindow(latent, shape, window), signal });
  const [only, ...others] = windows;
  const [lane] = lanes.all;
  try {
    if (only !== undefined && lane !== undefined && others.length === 0) return await velocityOf(only, lane);
    const velocity = new Float32Array(latent.length);
    const waiting = windows.values();
    const work = async (mine: DenoiseLane): Promise<void> => {
      for (const window of waiting) {
        const part = await velocityOf(window, mine);
        await inSlices(part.length, (start, end) => blendWindow(velocity, shape, window, part, start, end));
      }
    };
    await Promise.all(lanes.all.map(work));
    return velocity;
  } catch (thrown) {
    // The other evaluations are of no use any more.
    abort.abort(thrown);
    throw thrown;
  }
}

interface WindowWork {
  readonly window: LatentWindow;
  readonly lane: DenoiseLane;
  /** The window's latent. */
  readonly part: Float32Array;
  readonly signal: AbortSignal;
}

async function windowVelocity(run: JobRun, input: StepInput, work: WindowWork): Promise<Float32Array> {
  const { conditional, unconditional } = input.contexts;
  const [guided, base] = await Promise.all([
    branchVelocity(run, input, work, "conditional", conditional),
    unconditional && branchVelocity(run, input, work, "unconditional", unconditional),
  ]);
  if (base !== undefined) {
    const guidance = guidanceAt(run, input.timestep);
    await inSlices(guided.length, (start, end) => guide(guided, base, guidance, guided, start, end));
  }
  return guided;
}

/** Of two noise levels the lower may have a guidance of its own. */
function guidanceAt({ spec: { guidance, guidanceLow, boundary } }: JobRun, timestep: number): number {
  return guidanceLow !== undefined && boundary !== undefined && timestep < boundary ? guidanceLow : guidance;
}

function branchVelocity(
  run: JobRun,
  { shape, timestep, traceparent }: StepInput,
  { window, lane, part, signal }: WindowWork,
  branch: keyof DenoiseLane,
  context: Context,
): Promise<Float32Array> {
  const [channels, , height, width] = shape;
  const head = {
    bundleDigest: run.model.digest,
    latent: f32Head([channels, window.weights.length, height, width]),
    timestep,
    contextHash: context.hash,
    branch: branch === "conditional" ? ("BRANCH_CONDITIONAL" as const) : ("BRANCH_UNCONDITIONAL" as const),
    origin: window.origin,
    variant: run.spec.quality,
    ...(run.spec.boundary === undefined ? {} : { boundary: run.spec.boundary }),
  };
  return retryPure(
    () => lane[branch].evaluate({ ...head, deadlineMs: limit("denoiseCallMsMax"), traceparent }, part, context, signal),
    retriesOf(run, "router", signal),
  );
}
