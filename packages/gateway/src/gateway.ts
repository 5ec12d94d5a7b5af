// What every method of the gateway works with. Holds open calls and cursors only: no tensors, no job state of its own.
import type { Logger, Metrics, Tracing } from "@moevie/runtime";
import type { JobStore } from "@moevie/job-store";
import type { OpenCalls } from "./open-calls.ts";
import type { ModelDefaults } from "./valid-video-spec.ts";

export interface Gateway {
  readonly store: JobStore;
  readonly model: ModelDefaults;
  readonly bundleDigest: string;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  readonly log: Logger;
  readonly logPrompts: boolean;
  /** Watches, waits and downloads, whichever way they came. */
  readonly calls: OpenCalls;
  /** Aborts when the gateway drains: watches end with a cursor to resume from. */
  readonly signal: AbortSignal;
}
