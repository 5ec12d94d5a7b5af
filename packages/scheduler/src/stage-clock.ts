// Times the stages of a job: for its record, its trace and the metrics.
import { asMoevieError } from "@moevie/contracts";
import type { JobStage, StageTiming } from "@moevie/job-store";
import type { Metrics, Tracing } from "@moevie/runtime";

export class StageClock {
  readonly #metrics: Metrics;
  readonly #tracing: Tracing;
  readonly #traceparent: string;
  readonly #timings: StageTiming[];

  constructor(metrics: Metrics, tracing: Tracing, traceparent: string, queueSeconds: number) {
    this.#metrics = metrics;
    this.#tracing = tracing;
    this.#traceparent = traceparent;
    this.#timings = [{ stage: "queue", seconds: queueSeconds }];
  }

  /** Stages that are over. */
  get timings(): readonly StageTiming[] {
    return [...this.#timings];
  }

  /** Runs a stage in a span of its name; `work` gets the span's traceparent. */
  time<T>(stage: JobStage, work: (traceparent: string) => Promise<T>): Promise<T> {
    return this.#tracing.span(stage, { traceparent: this.#traceparent }, async (span) => {
      const startMs = performance.now();
      try {
        const result = await work(span.traceparent);
        const seconds = (performance.now() - startMs) / 1000;
        this.#timings.push({ stage, seconds });
        this.#metrics.observe("moevie_stage_duration_seconds", { stage }, seconds);
        return result;
      } catch (thrown) {
        this.#metrics.add("moevie_stage_errors_total", { stage, reason: asMoevieError(thrown).reason });
        throw thrown;
      }
    });
  }
}
