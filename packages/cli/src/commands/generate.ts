// `moevie generate PROMPT`: a cluster of its own, one clip through the public API, and nothing left behind.
import { randomInt } from "node:crypto";
import type { VideoClient } from "@moevie/client";
import type { Video, VideoSpec } from "@moevie/contracts";
import { checkBundle, checkShardCount } from "../bundle-folder.ts";
import { chooseClipFile, saveClip, slugOf } from "../clip-file.ts";
import { textFlag, type CommandContext, type CommandResult, type RawFlags } from "../command.ts";
import { CommandError, InterruptedError } from "../failure.ts";
import { followVideo } from "../follow-video.ts";
import { ProgressView } from "../progress-view.ts";
import { videoName } from "../server-connection.ts";
import { SHARD_COUNT } from "../shard-count.ts";
import {
  collectReference,
  parseReferenceFiles,
  stageReference,
  wantsReference,
  type ReferenceFiles,
} from "../reference-files.ts";
import {
  startEmbeddedCluster,
  type EmbeddedCluster,
  type EmbeddedClusterOptions,
} from "../supervisor/embedded-cluster.ts";
import { parseVideoSpec, parseWholeNumber } from "../video-flags.ts";
import { artefactLine, timingsLine, timingsOf, videoJson } from "../video-result.ts";

/** A chosen seed stays short enough to be typed again. */
const CHOSEN_SEED_LIMIT = 2 ** 32;
/** How long an interrupted command waits for the server to take note of the cancel. */
const CANCEL_WAIT_MS = 1000;

interface GenerateRequest {
  readonly spec: VideoSpec & { readonly seed: number };
  readonly target: string;
  readonly shardCount: number;
  readonly bundleDir: string | undefined;
  readonly reference: ReferenceFiles;
}

/** Everything that can be refused before a process starts. */
async function parseGenerate(args: readonly string[], flags: RawFlags): Promise<GenerateRequest> {
  const parsed = parseVideoSpec(args[0] ?? "", flags);
  const spec = { ...parsed, seed: parsed.seed ?? randomInt(CHOSEN_SEED_LIMIT) };
  const shardCount = parseWholeNumber(flags, "shards", "--shards", SHARD_COUNT);
  const target = chooseClipFile(textFlag(flags, "output"), `moevie-${slugOf(spec.prompt)}-${spec.seed}.mp4`);
  const model = textFlag(flags, "model");
  const bundle = model === undefined ? undefined : await checkBundle("--model", model);
  checkShardCount(shardCount, bundle);
  const reference = parseReferenceFiles(flags);
  return { spec, target, shardCount, bundleDir: bundle?.folder, reference };
}

function clusterOptions(context: CommandContext, request: GenerateRequest, view: ProgressView): EmbeddedClusterOptions {
  const { config, clock, output, interruption } = context;
  return {
    config,
    clock,
    bundleDir: request.bundleDir,
    shardCount: request.shardCount,
    restart: false,
    reference: wantsReference(request.reference),
    logFormat: output.interactive ? "pretty" : "json",
    logLevel: config.logLevel ?? "warn",
    forwardLog: config.logLevel === undefined ? undefined : (line) => output.note(line),
    signal: interruption.signal,
    onEvent: (event) => {
      if (event.kind === "building-bundle") view.show("bundle", "building the starter model's bundle (once)");
      if (event.kind === "ready") view.show("start", `starting: ${event.readyCount} of ${event.count} services ready`);
    },
  };
}

/** Submits, follows, fetches. Cancels the job when `signal` aborts first. */
async function makeClip(
  client: VideoClient,
  cluster: EmbeddedCluster,
  request: GenerateRequest,
  view: ProgressView,
  signal: AbortSignal,
): Promise<Video> {
  const staged = stageReference(request.reference, cluster.referenceDir);
  const operation = await client.createVideo({ ...request.spec, ...staged }, { signal });
  const name = videoName(operation.name);
  try {
    const video = await followVideo(client, name, view, signal);
    if (video.state !== "VIDEO_STATE_COMPLETED")
      throw new CommandError(
        video.error?.message ?? `the video ended as ${video.state}`,
        video.error?.reason ?? "FAILED",
      );
    await saveClip(request.target, client.downloadVideo(name, { signal }), {
      sha256: video.artefact?.sha256,
      stagingDir: cluster.runDir,
      signal,
    });
    collectReference(request.reference, cluster.referenceDir);
    return video;
  } catch (error) {
    if (signal.aborted)
      await client.cancelVideo(name, { signal: AbortSignal.timeout(CANCEL_WAIT_MS) }).catch(() => undefined);
    throw error;
  }
}

/** Runs `makeClip` until it is done, the cluster dies or the user has had enough, whichever is first. */
async function runJob(
  context: CommandContext,
  cluster: EmbeddedCluster,
  request: GenerateRequest,
  view: ProgressView,
): Promise<Video> {
  const { VideoClient } = await import("@moevie/client");
  const client = new VideoClient(cluster.grpcAddress);
  const ended = new AbortController();
  const fatal = cluster.fatal.then((cause) => {
    ended.abort(cause);
    throw cause;
  });
  const signal = AbortSignal.any([ended.signal, context.interruption.signal]);
  try {
    return await Promise.race([makeClip(client, cluster, request, view, signal), fatal]);
  } catch (error) {
    throw context.interruption.signal.aborted ? new InterruptedError() : error;
  } finally {
    client.close();
  }
}

export async function generate(
  context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const request = await parseGenerate(args, flags);
  const { clock, interruption } = context;
  const view = new ProgressView(context.output, context.json);
  const startMs = clock.nowMs();
  const cluster = await startEmbeddedCluster(clusterOptions(context, request, view));
  const startSeconds = (clock.nowMs() - startMs) / 1000;
  interruption.hurry.addEventListener("abort", () => void cluster.stop(0), { once: true });
  let video: Video;
  try {
    video = await runJob(context, cluster, request, view);
  } finally {
    await cluster.stop(interruption.hurry.aborted ? 0 : undefined);
  }
  const stageSeconds = { start: startSeconds, ...timingsOf(video), total: (clock.nowMs() - startMs) / 1000 };
  return {
    json: {
      path: request.target,
      seed: request.spec.seed,
      stageSeconds,
      video: { ...videoJson(video), stageSeconds: undefined },
    },
    lines: [
      request.target,
      `seed ${request.spec.seed} · ${artefactLine(video)}`,
      timingsLine(stageSeconds),
      ...video.warnings.map((warning) => `warning: ${warning}`),
    ],
  };
}
