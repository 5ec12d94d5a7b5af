// A video as the commands print it: one shape for --json, a few lines for people.
import type { Timestamp, Video } from "@moevie/contracts";
import { progressLine, stageName } from "./progress-view.ts";
import { shownBytes } from "./shown-bytes.ts";

/** "VIDEO_STATE_RUNNING" → "running". */
function stateName(state: string): string {
  return state.replace(/^VIDEO_STATE_/, "").toLowerCase();
}

function isoTime(time: Timestamp | null): string | undefined {
  return time === null ? undefined : new Date(time.seconds * 1000 + time.nanos / 1e6).toISOString();
}

/** Stage → seconds, in the order the server gives them. */
export function timingsOf(video: Video): Record<string, number> {
  return Object.fromEntries(video.stageTimings.map(({ stage, seconds }) => [stageName(stage), seconds]));
}

/** Plain data for --json. */
export function videoJson(video: Video): Record<string, unknown> {
  return {
    name: video.name,
    state: stateName(video.state),
    spec: video.spec,
    progress: video.progress === null ? null : { ...video.progress, stage: stageName(video.progress.stage) },
    stageSeconds: timingsOf(video),
    createTime: isoTime(video.createTime),
    startTime: isoTime(video.startTime),
    finishTime: isoTime(video.finishTime),
    error: video.error,
    artefact: video.artefact,
    bundleDigest: video.bundleDigest,
    attempt: video.attempt,
    warnings: video.warnings,
    tenant: video.tenant,
    priority: video.priority.replace(/^VIDEO_PRIORITY_/, "").toLowerCase(),
    deadlineTime: isoTime(video.deadlineTime),
  };
}

/** "encode 0.1 s · denoise 9.8 s". */
export function timingsLine(timings: Readonly<Record<string, number>>): string {
  return Object.entries(timings)
    .map(([stage, seconds]) => `${stage} ${seconds.toFixed(1)} s`)
    .join(" · ");
}

/** "1280x720, 24 fps, 48 frames, h264, 1.2 MiB"; "" while there is no file. */
export function artefactLine(video: Video): string {
  const file = video.artefact;
  return file === null
    ? ""
    : `${file.width}x${file.height}, ${file.fps} fps, ${file.frameCount} frames, ${file.codec}, ${shownBytes(file.sizeBytes)}`;
}

/** One video in a few lines. */
export function videoLines(video: Video): string[] {
  const lines = [`${video.name}  ${stateName(video.state)}`];
  if (video.spec !== null)
    lines.push(`  prompt   ${JSON.stringify(video.spec.prompt)}`, `  seed     ${video.spec.seed ?? "not chosen yet"}`);
  if (video.state === "VIDEO_STATE_RUNNING" && video.progress !== null)
    lines.push(`  progress ${progressLine(video.progress)}`);
  if (video.stageTimings.length > 0) lines.push(`  timings  ${timingsLine(timingsOf(video))}`);
  if (video.artefact !== null) lines.push(`  file     ${artefactLine(video)}`);
  if (video.error !== null) lines.push(`  error    ${video.error.reason}: ${video.error.message}`);
  return [...lines, ...video.warnings.map((warning) => `  warning  ${warning}`)];
}

/** One video in one line of a list. */
export function videoRow(video: Video): string {
  const prompt = Array.from(video.spec?.prompt ?? "");
  return `${video.name}  ${stateName(video.state).padEnd(9)}  ${isoTime(video.createTime) ?? ""}  ${JSON.stringify(prompt.length > 60 ? `${prompt.slice(0, 59).join("")}…` : prompt.join(""))}`;
}
