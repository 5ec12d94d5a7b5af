// Schedule after schedule until one breaks a promise, and what they came to.
import type { StoreKind } from "./ground.ts";
import type { Mutation } from "./mutation.ts";
import { runSchedule } from "./run-schedule.ts";

const TOLD_EVERY = 500;

export interface SchedulesOptions {
  readonly store: StoreKind;
  readonly schedules: number;
  /** Of the first; the next has the next. */
  readonly seed: number;
  readonly mutation?: Mutation | undefined;
  readonly onLine?: (line: string) => void;
}

export interface SchedulesReport {
  readonly schedules: number;
  readonly jobs: number;
  readonly troubles: number;
  readonly virtualSeconds: number;
  readonly perSecond: number;
  /** Seed of the schedule that broke a promise. */
  readonly broken?: number;
  readonly violations?: readonly string[];
}

/** One schedule alone tells all that happens in it. */
export async function runSchedules(options: SchedulesOptions): Promise<SchedulesReport> {
  const { store, schedules, seed, mutation, onLine = () => undefined } = options;
  const startMs = performance.now();
  const sum = { schedules: 0, jobs: 0, troubles: 0, virtualSeconds: 0 };
  let broken: { readonly broken: number; readonly violations: readonly string[] } | undefined;
  for (let at = seed; at < seed + schedules && broken === undefined; at++) {
    const report = await runSchedule({ store, seed: at, traced: schedules === 1, ...(mutation && { mutation }) });
    sum.schedules += 1;
    sum.jobs += report.jobs;
    sum.troubles += report.troubles;
    sum.virtualSeconds += report.virtualMs / 1000;
    if (schedules === 1) report.trace.forEach(onLine);
    if (report.violations.length > 0) broken = { broken: at, violations: report.violations };
    if (sum.schedules % TOLD_EVERY === 0) onLine(`${sum.schedules} schedules`);
  }
  return { ...sum, perSecond: sum.schedules / ((performance.now() - startMs) / 1000), ...broken };
}
