// The decoder service: loads the bundle's video decoder, proves it with one run, answers Decode. Holds no clip between calls.
import { BundleError, openBundle, type Bundle } from "@moevie/bundle";
import { MoevieError, limit, type ClipFacts } from "@moevie/contracts";
import {
  OnnxThread,
  implement,
  type GrpcService,
  type Metrics,
  type RunningService,
  type ServiceContext,
} from "@moevie/runtime";
import { decoderConfig } from "./config.ts";
import { decode, type DecodeSettings } from "./decode.ts";
import { readDecodeRequest, type ServedModel } from "./decode-request.ts";
import { h264Encoder } from "./media/native.ts";
import { CausalDecoder } from "./vae/causal-decoder.ts";
import { LatentUpsampler } from "./vae/latent-upsampler.ts";

/** Tiles begin three quarters of a side apart. */
const TILE_CELLS_MULTIPLE = 4;

/** Loads, proves and serves. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING, CONFIG_INVALID. */
export async function startDecoder(context: ServiceContext): Promise<RunningService> {
  const config = decoderConfig(context.env);
  h264Encoder();
  const thread = OnnxThread.start({ name: "decoder", device: config.device, intraOpThreads: config.threads });
  try {
    const bundle = await openBundle(config.bundleFolder);
    const decoder = await loadDecoder(thread, bundle, config.tile);
    await proveDecoder(decoder, bundle.manifest);
    const settings = {
      folder: config.temporaryFolder,
      referenceDir: config.referenceDir,
      encoding: {
        device: config.device,
        threads: config.threads,
        onCpu: (why: string) => context.log.warn({ device: config.device, why }, "a clip is encoded on the CPU"),
      },
      colours: bundle.manifest.latent,
    };
    return { grpc: [decodeService(decoder, servedModel(bundle), settings, context)], close: () => thread.close() };
  } catch (thrown) {
    await thread.close();
    if (thrown instanceof BundleError) throw new MoevieError("BUNDLE_CORRUPT", thrown.message, { cause: thrown });
    throw thrown;
  }
}

async function loadDecoder(thread: OnnxThread, bundle: Bundle, tile: number): Promise<CausalDecoder> {
  const { spatialStride, upsampling } = bundle.manifest.latent;
  if (tile % (TILE_CELLS_MULTIPLE * spatialStride) !== 0)
    throw new MoevieError(
      "CONFIG_INVALID",
      `MOEVIE_DECODE_TILE is "${tile}"; allowed: multiples of ${TILE_CELLS_MULTIPLE * spatialStride} for this bundle, e.g. 256, or 0 for whole pictures`,
    );
  const graphs = { first: await bundle.graph("decoder.first"), next: await bundle.graph("decoder.next") };
  const upsampler =
    upsampling > 1 ? await LatentUpsampler.load(thread, await bundle.graph("latent-upsampler")) : undefined;
  return CausalDecoder.load(thread, graphs, { perCell: spatialStride * upsampling, upsampler, tile });
}

function servedModel({ digest, manifest: { frameRate, steadyLevels, latent } }: Bundle): ServedModel {
  return {
    digest,
    frameRate,
    steadyLevels,
    channels: latent.channels,
    temporalStride: latent.temporalStride,
    pixelsPerCell: latent.spatialStride * latent.upsampling,
  };
}

/** Every graph runs once on a small zero latent. */
async function proveDecoder(decoder: CausalDecoder, { latent }: Bundle["manifest"]): Promise<void> {
  const shape = [latent.channels, 2, 2, 2] as const;
  const zeros = new Float32Array(latent.channels * 2 * 2 * 2);
  const times = { vaeUs: 0, upsampleUs: 0 };
  for await (const picture of decoder.frames({ values: zeros, shape }, new AbortController().signal, times))
    void picture;
}

/** The gRPC face; refuses calls beyond decodesInFlightMax with QUEUE_FULL. */
function decodeService(
  decoder: CausalDecoder,
  model: ServedModel,
  settings: DecodeSettings,
  { metrics, signal: draining }: Pick<ServiceContext, "metrics" | "signal">,
): GrpcService {
  let inFlight = 0;
  metrics.declare("moevie_frames_generated_total");
  metrics.declare("moevie_video_seconds_generated_total");
  return implement("moevie.v1.DecodeService", {
    Decode: async function* (requests, call) {
      if (draining.aborted) throw new MoevieError("DRAINING", "The decoder is going away.");
      if (inFlight >= limit("decodesInFlightMax"))
        throw new MoevieError("QUEUE_FULL", `The decoder already works on ${inFlight} clips.`, {
          retryAfterMs: limit("queueRetryAfterMs"),
        });
      inFlight++;
      try {
        const request = await readDecodeRequest(requests, model);
        for await (const part of decode(request, decoder, settings, call.signal)) {
          if ("facts" in part) countClip(metrics, part.facts);
          yield part;
        }
      } finally {
        inFlight--;
      }
    },
  });
}

function countClip(metrics: Metrics, { frameCount, fps }: ClipFacts): void {
  metrics.add("moevie_frames_generated_total", {}, frameCount);
  metrics.add("moevie_video_seconds_generated_total", {}, frameCount / fps);
}
