// Step lease-job: takes queued jobs while there is room, and waits for news when there is none.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { JobStore, Lease } from "@moevie/job-store";
import type { Clock, Logger } from "@moevie/runtime";
import type { SchedulerSettings } from "./job-run.ts";

/** Ends a wait: nobody reads it, and one made for each wait would cost more than the wait. */
const OVER = new MoevieError("CANCELLED", "The wait is over.");

export interface ClaimLoop {
  readonly store: JobStore;
  readonly settings: SchedulerSettings;
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly clock: Clock;
  /** Runs a job to its end; never rejects. */
  readonly run: (lease: Lease) => Promise<void>;
  /** Called whenever the store may have changed. */
  readonly onTurn: () => Promise<void>;
}

/** Takes back what an earlier life of this owner held, claims until the signal aborts, then waits for the running jobs to stop. */
export async function leaseJobs({ store, settings, signal, log, clock, run, onTurn }: ClaimLoop): Promise<void> {
  const running = new Set<Promise<void>>();
  let takenBack = false;
  while (!signal.aborted) {
    const seen = store.changeCount;
    try {
      if (!takenBack) {
        const jobs = await store.takeBack(settings.owner);
        takenBack = true;
        if (jobs > 0) log.warn({ jobs }, "took back jobs that this scheduler held before it was started again");
      }
      await onTurn();
      const room = running.size < settings.jobsRunningMax;
      const lease = room ? await store.claimNext({ owner: settings.owner, leaseMs: settings.leaseMs }) : null;
      if (lease !== null) {
        const job = run(lease).finally(() => running.delete(job));
        running.add(job);
        continue;
      }
    } catch (thrown) {
      const error = asMoevieError(thrown);
      log.error({ reason: error.reason, detail: error.detail }, "the job store failed");
      await clock.pause(settings.leaseRenewMs, signal).catch(() => undefined);
    }
    await news(store, seen, running, settings.leaseRenewMs, signal, clock);
  }
  await Promise.all(running);
}

/** A change in the store, a job that ended, the time to look for dead leases, or the signal: whichever is first. */
async function news(
  store: JobStore,
  seen: number,
  running: ReadonlySet<Promise<void>>,
  lookMs: number,
  signal: AbortSignal,
  clock: Clock,
): Promise<void> {
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  await Promise.race([
    ...running,
    quiet(store.waitForChange({ after: seen, signal: either })),
    quiet(clock.pause(lookMs, either)),
  ]);
  over.abort(OVER);
}

/** A wait that may be given up. */
function quiet(wait: Promise<void>): Promise<void> {
  return wait.catch(() => undefined);
}
