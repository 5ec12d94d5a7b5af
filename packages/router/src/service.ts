// The router: evaluates the denoiser for callers, keeps text contexts and statistics, holds no job. DenoiseService as in
// protos/moevie/v1/denoise.proto.
import { MoevieError, limit, shownValue } from "@moevie/contracts";
import type { DenoiseHead, DenoiseRequest, DenoiseResponse } from "@moevie/contracts";
import { expertsOf, isNoiseDenoiser, openBundle } from "@moevie/bundle";
import type { Bundle, Variant } from "@moevie/bundle";
import { implement } from "@moevie/runtime";
import type { CallInfo, Handlers, Loose, RunningService, ServiceContext } from "@moevie/runtime";
import { routerConfig } from "./config.ts";
import type { DenoiseInput } from "./denoise.ts";
import { Donors } from "./donors.ts";
import { openEvaluator } from "./evaluator.ts";
import type { Evaluator } from "./evaluator.ts";
import { ExpertStatistics } from "./expert-statistics.ts";
import { HedgePolicy } from "./hedge-policy.ts";
import { ShardLinks } from "./shard-links.ts";
import { TextContexts } from "./text-contexts.ts";
import { chunksOf, collectTensor, invalidTensor, tensorBytes } from "./tensor-stream.ts";

/** Address under which the HTTP edge shows rows per (layer, expert) and step phase, and which shard holds what. */
const STATISTICS_PATH = "/experts";
/** Under which it shows what no shard holds: for a controller that leads, and for nobody else. */
const MISSING_PATH = "/experts/missing";
/** The same, asked by a controller that leads: the choice of donors is its own then. */
const LED_PATH = "/experts/missing?led";
/** Latent frames of a model's time; far beyond any, and whole in f32. */
const ORIGIN_MAX = 65_535;
const BRANCHES = ["BRANCH_UNSPECIFIED", "BRANCH_CONDITIONAL", "BRANCH_UNCONDITIONAL"];

type RouterContext = Pick<ServiceContext, "env" | "log" | "metrics" | "tracing" | "signal">;

/** Resolves once the trunk is loaded, every expert is held by a connected shard and one evaluation of each variant ran. */
export async function startRouter(context: RouterContext): Promise<RunningService> {
  const config = routerConfig(context.env);
  const bundle = await openBundle(config.bundle);
  const { layers, experts } = expertsOf(bundle.manifest.denoiser);
  const { log, metrics, tracing } = context;
  const hedges = new HedgePolicy({ share: config.hedgeShare });
  const links = new ShardLinks({
    addresses: config.shards,
    digest: bundle.digest,
    model: { layers, experts },
    log,
    metrics,
    segmentFolder: config.segmentFolder,
    onForgotten: (shard) => {
      hedges.forget(shard);
      donors.forget(shard);
    },
  });
  const statistics = new ExpertStatistics(layers, experts);
  const donors = new Donors({ links, afterMs: config.donorAfterMs, log, metrics });
  const parts = { links, wire: config.wire, hedges, donors, metrics, tracing };
  const evaluator = await openEvaluator(bundle, config, parts, statistics);
  const ready = AbortSignal.any([context.signal, AbortSignal.timeout(limit("readyWaitMsMax"))]);
  await waitForExperts(links, ready);
  for (const variant of Object.values(bundle.manifest.variants)) await warm(bundle, variant, evaluator, ready);
  const pageOf = (url: string | undefined): object | undefined => {
    if (url === STATISTICS_PATH) return { ...statistics.snapshot(), epoch: links.epoch, shards: links.held() };
    return url === MISSING_PATH || url === LED_PATH ? donors.missing(performance.now(), url === LED_PATH) : undefined;
  };
  const service = new DenoiseService({ bundle, evaluator, links, metrics, tracing });
  return {
    grpc: [implement("moevie.v1.DenoiseService", service.handlers)],
    http: (request, response) => {
      const page = pageOf(request.url);
      if (page === undefined) return false;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(page));
      return true;
    },
    close: async () => {
      donors.close();
      links.close();
      await evaluator.close();
    },
  };
}

async function waitForExperts(links: ShardLinks, signal: AbortSignal): Promise<void> {
  for (let missing = links.missing(); missing.length > 0; missing = links.missing()) {
    try {
      await links.change(signal);
    } catch (cause) {
      const [layer, expert] = missing[0] ?? [0, 0];
      throw new MoevieError("EXPERT_MISSING", `No connected shard holds expert ${expert} of layer ${layer}.`, {
        cause,
      });
    }
  }
}

/** The latent that evaluations are proven with: the model's own size, or of one that draws what is asked two tokens a side. */
function provenShape({ latent, denoiser, draws, modelFrames, height, width }: Bundle["manifest"]): readonly number[] {
  const { channels, temporalStride, spatialStride } = latent;
  const [, rows = 1, columns = 1] = denoiser.patch;
  if (draws === "asked") return [channels, 1, 2 * rows, 2 * columns];
  return [channels, (modelFrames - 1) / temporalStride + 1, height / spatialStride, width / spatialStride];
}

/** One evaluation for each of the denoiser's noise levels, so that ready means proven. */
async function warm(bundle: Bundle, { graphs }: Variant, evaluator: Evaluator, signal: AbortSignal): Promise<void> {
  const { manifest } = bundle;
  const shape = provenShape(manifest);
  const latent = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, at) => Math.sin(at));
  const { maxTokens, width } = manifest.text;
  const text = await evaluator.context(graphs, new Float32Array(maxTokens * width).fill(0.1), maxTokens, width);
  const endMs = performance.now() + limit("readyWaitMsMax");
  const input = { graphs, latent, shape, origin: 0, context: text };
  const { denoiser } = manifest;
  for (const timestep of isNoiseDenoiser(denoiser) ? denoiser.gate.from : [500])
    await evaluator.run({ ...input, timestep, branch: 0, signal, endMs, traceparent: undefined }, input);
  evaluator.leave(input);
}

interface DenoiseServiceParts extends Pick<ServiceContext, "metrics" | "tracing"> {
  readonly bundle: Bundle;
  readonly evaluator: Evaluator;
  readonly links: ShardLinks;
}

class DenoiseService {
  readonly #parts: DenoiseServiceParts;
  readonly #contexts: TextContexts;
  #inFlight = 0;
  readonly handlers: Handlers<"moevie.v1.DenoiseService"> = {
    Denoise: (requests, call) => this.#denoise(requests, call),
  };

  constructor(parts: DenoiseServiceParts) {
    this.#parts = parts;
    this.#contexts = new TextContexts(parts.evaluator, parts.bundle.manifest.text.width);
    for (const name of [
      "moevie_router_trunk_seconds_total",
      "moevie_router_exchange_wait_seconds_total",
      "moevie_router_exchange_hidden_seconds_total",
      "moevie_router_queue_depth",
    ] as const) {
      parts.metrics.declare(name);
    }
  }

  /** The variant a head names; an empty name is the standard one. */
  #variant(name: string): Variant {
    const { variants } = this.#parts.bundle.manifest;
    const asked = name === "" ? "standard" : name;
    const found = Object.hasOwn(variants, asked) ? variants[asked] : undefined;
    if (found !== undefined) return found;
    throw invalidTensor("head.variant", `is ${shownValue(name)}; allowed: ${Object.keys(variants).join(", ")}`);
  }

  /** Evaluation after evaluation, until the caller ends the stream or the router goes away. */
  async *#denoise(requests: AsyncIterable<DenoiseRequest>, call: CallInfo): AsyncIterable<Loose<DenoiseResponse>> {
    const parts = requests[Symbol.asyncIterator]();
    const drained = Promise.withResolvers<undefined>();
    const onDrain = (): void => drained.resolve(undefined);
    if (call.draining.aborted) onDrain();
    call.draining.addEventListener("abort", onDrain, { once: true });
    try {
      for (;;) {
        const first = await Promise.race([parts.next(), drained.promise]);
        if (first === undefined || first.done === true) return;
        const { context } = first.value;
        if (context === undefined) yield* this.#evaluate(first.value, parts, call);
        else await this.#contexts.receive(context, this.#variant(context.variant).graphs, parts, call.signal);
      }
    } finally {
      call.draining.removeEventListener("abort", onDrain);
      this.#parts.evaluator.leave(parts);
    }
  }

  async *#evaluate(
    first: DenoiseRequest,
    parts: AsyncIterator<DenoiseRequest>,
    call: CallInfo,
  ): AsyncIterable<Loose<DenoiseResponse>> {
    const { metrics, links, evaluator, tracing } = this.#parts;
    if (this.#inFlight >= limit("callsInFlightMax"))
      throw new MoevieError("QUEUE_FULL", `${limit("callsInFlightMax")} evaluations are in flight at this router.`, {
        retryAfterMs: 100,
      });
    this.#inFlight++;
    metrics.set("moevie_router_queue_depth", {}, this.#inFlight);
    try {
      const { head, input: asked } = await this.#parse(first, parts, call);
      const key = { graphs: asked.graphs, hash: head.contextHash };
      const input = { ...asked, context: yield* this.#contexts.wanted(key, parts, call.signal) };
      const result = await tracing.span(
        "denoise",
        { traceparent: input.traceparent, attributes: { branch: input.branch } },
        (span) => evaluator.run({ ...input, traceparent: span.traceparent }, parts),
      );
      metrics.add("moevie_router_trunk_seconds_total", {}, result.trunkUs / 1e6);
      metrics.add("moevie_router_exchange_wait_seconds_total", {}, result.exchangeWaitUs / 1e6);
      metrics.add("moevie_router_exchange_hidden_seconds_total", {}, result.hiddenUs / 1e6);
      const times = {
        trunkUs: Math.round(result.trunkUs),
        exchangeWaitUs: Math.round(result.exchangeWaitUs),
        totalUs: Math.round(result.totalUs),
      };
      yield { head: { velocity: head.latent, placementEpoch: links.epoch, ...times } };
      yield* chunksOf(result.velocity);
    } finally {
      this.#inFlight--;
      metrics.set("moevie_router_queue_depth", {}, this.#inFlight);
    }
  }

  async #parse(
    { head }: DenoiseRequest,
    parts: AsyncIterator<DenoiseRequest>,
    call: CallInfo,
  ): Promise<{ head: DenoiseHead; input: Omit<DenoiseInput, "context"> }> {
    const { manifest, digest } = this.#parts.bundle;
    if (head === undefined) throw invalidTensor("head", "must come before chunks");
    if (head.bundleDigest !== digest)
      throw new MoevieError(
        "BUNDLE_MISMATCH",
        `The router serves bundle ${digest}, the caller named "${head.bundleDigest}".`,
      );
    const { shape, bytes } = tensorBytes(head.latent, "head.latent", 4, limit("latentBytesMax"));
    const [, patchHeight, patchWidth] = manifest.denoiser.patch as [number, number, number];
    const [channels, , height, width] = shape as [number, number, number, number];
    if (channels !== manifest.latent.channels)
      throw invalidTensor("head.latent", `channels must be ${manifest.latent.channels}`);
    if (height % patchHeight !== 0 || width % patchWidth !== 0)
      throw invalidTensor("head.latent", `height and width must be multiples of ${patchHeight} and ${patchWidth}`);
    if (!(head.timestep >= 0 && head.timestep <= 1000)) throw invalidTensor("head.timestep", "must be from 0 to 1000");
    if (!(head.origin <= ORIGIN_MAX)) throw invalidTensor("head.origin", `must be from 0 to ${ORIGIN_MAX}`);
    const { graphs } = this.#variant(head.variant);
    const latent = await collectTensor(parts, bytes, "head.latent");
    const input = {
      graphs,
      latent,
      shape,
      timestep: head.timestep,
      boundary: head.boundary,
      origin: head.origin,
      branch: Math.max(0, BRANCHES.indexOf(head.branch)),
      signal: call.signal,
      endMs: performance.now() + waitMs(head, call),
      traceparent: head.traceparent === "" ? call.traceparent : head.traceparent,
    };
    return { head, input };
  }
}

/** Milliseconds an evaluation may take: the least of its own deadline, the stream's and the longest allowed. */
function waitMs(head: DenoiseHead, call: CallInfo): number {
  const streamMs = call.deadlineMs - (performance.timeOrigin + performance.now());
  return Math.min(limit("denoiseCallMsMax"), streamMs, head.deadlineMs === 0 ? Infinity : head.deadlineMs);
}
