// How a job's progress looks: one redrawn line on a terminal, one plain line a stage elsewhere. Text only; knows no stream of events.
import type { VideoProgress, VideoStage } from "@moevie/contracts";
import type { Output } from "./output.ts";

const STAGE_NAMES: Readonly<Record<VideoStage, string>> = {
  VIDEO_STAGE_UNSPECIFIED: "waiting",
  VIDEO_STAGE_QUEUE: "queue",
  VIDEO_STAGE_ENCODE: "encode",
  VIDEO_STAGE_DENOISE: "denoise",
  VIDEO_STAGE_DECODE: "decode",
  VIDEO_STAGE_COMMIT: "commit",
};

/** A stage as people write it. */
export function stageName(stage: VideoStage): string {
  return STAGE_NAMES[stage];
}

/** Seconds as "8 s" or "1 min 20 s". */
function shortDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** Stage, step of steps, percent and time left in one line. */
export function progressLine(progress: VideoProgress): string {
  const parts = [stageName(progress.stage)];
  if (progress.stepCount > 0 && progress.stage === "VIDEO_STAGE_DENOISE")
    parts.push(`step ${progress.step} of ${progress.stepCount}`);
  if (progress.percent > 0) parts.push(`${Math.floor(progress.percent)} %`);
  if (progress.remainingSeconds !== undefined) parts.push(`about ${shortDuration(progress.remainingSeconds)} left`);
  return parts.join(" · ");
}

export class ProgressView {
  readonly #output: Output;
  readonly #quiet: boolean;
  #stage: string | undefined;

  /** `quiet`: draw on a terminal only, print no plain lines. */
  constructor(output: Output, quiet: boolean) {
    this.#output = output;
    this.#quiet = quiet;
  }

  /** Shows a line that replaces the last one; `stage` decides when a plain line is due. */
  show(stage: string, line: string): void {
    const changed = stage !== this.#stage;
    this.#stage = stage;
    if (this.#output.interactive) this.#output.redraw(line);
    else if (changed && !this.#quiet) this.#output.note(line);
  }

  update(progress: VideoProgress): void {
    this.show(stageName(progress.stage), progressLine(progress));
  }
}
