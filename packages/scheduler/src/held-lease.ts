// A lease while its job runs: renews it, hears cancel requests and loss, and is the only way a running job writes to the store.
import { once } from "node:events";
import { MoevieError, asMoevieError, limit } from "@moevie/contracts";
import {
  DEADLINE_PASSED,
  type JobProgress,
  type JobStore,
  type Lease,
  type LeaseAnswer,
  type StageTiming,
} from "@moevie/job-store";
import type { Clock, Logger } from "@moevie/runtime";

/** One pause at most: timers take no more than 2^31 - 1 ms. */
const TIMER_MS_MAX = 86_400_000;
/** A service that drains waits for a checkpoint as long; one may be under way, and one more comes after it. */
const DRAIN_WAIT_MS = limit("drainMsMax") / 4;

export interface HeldLeaseOptions {
  readonly store: JobStore;
  readonly lease: Lease;
  readonly leaseRenewMs: number;
  /** Aborts when the service drains. */
  readonly drain: AbortSignal;
  readonly log: Logger;
  readonly clock: Clock;
}

export class HeldLease {
  readonly lease: Lease;
  /** Aborts with CANCELLED (asked for), DEADLINE, LEASE_LOST, DISK_FULL or DRAINING: the job stops where it is. */
  readonly signal: AbortSignal;
  readonly #store: JobStore;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #abort = new AbortController();
  readonly #ended = new AbortController();
  readonly #renewing: Promise<void>;
  #heardMs: number;

  constructor({ store, lease, leaseRenewMs, drain, log, clock }: HeldLeaseOptions) {
    this.lease = lease;
    this.#store = store;
    this.#log = log;
    this.#clock = clock;
    this.#heardMs = clock.monotonicMs();
    this.signal = AbortSignal.any([this.#abort.signal, drain]);
    if (lease.remainingMs !== undefined) void this.#stopAtDeadline(lease.remainingMs);
    this.#renewing = this.#renewUntilEnded(leaseRenewMs);
  }

  /** Why the job must stop, if it must. */
  get stopReason(): MoevieError | undefined {
    return this.signal.aborted ? asMoevieError(this.signal.reason) : undefined;
  }

  async progress(progress: JobProgress, timings?: readonly StageTiming[]): Promise<void> {
    await this.#heard(() => this.#store.writeProgress(this.lease, progress, timings));
  }

  async preview(previewPng: Uint8Array): Promise<void> {
    await this.#heard(() => this.#store.appendEvent(this.lease, { previewPng }));
  }

  /** False when the store could not take it, or the job must stop before it has: what comes of the write then is the store's matter. */
  async checkpoint(parts: readonly Uint8Array[]): Promise<boolean> {
    const over = new AbortController();
    const write = this.#heard(() => this.#store.saveCheckpoint(this.lease, parts));
    try {
      return await Promise.race([write, this.#mustStop(over.signal).then(() => false)]);
    } finally {
      over.abort();
    }
  }

  /** Ends the renewals. */
  async end(): Promise<void> {
    this.#ended.abort();
    await this.#renewing;
  }

  /** Resolves when nobody waits for a write any longer: a place of checkpoints may answer minutes later, or never. Rejects when it is `over`. */
  async #mustStop(over: AbortSignal): Promise<void> {
    if (!this.signal.aborted) await once(this.signal, "abort", { signal: over });
    if (this.#abort.signal.aborted) return;
    await Promise.race([this.#clock.pause(DRAIN_WAIT_MS, over), once(this.#abort.signal, "abort", { signal: over })]);
  }

  /** Counted on this process's monotonic clock from the claim on. */
  async #stopAtDeadline(remainingMs: number): Promise<void> {
    const endMs = this.#clock.monotonicMs() + remainingMs;
    while (!this.#ended.signal.aborted && !this.#abort.signal.aborted) {
      const leftMs = endMs - this.#clock.monotonicMs();
      if (leftMs <= 0) return this.#abort.abort(new MoevieError("DEADLINE", DEADLINE_PASSED));
      await this.#clock.pause(Math.min(leftMs, TIMER_MS_MAX), this.#ended.signal).catch(() => undefined);
    }
  }

  async #renewUntilEnded(leaseRenewMs: number): Promise<void> {
    while (!this.#ended.signal.aborted && !this.#abort.signal.aborted) {
      await this.#clock.pause(leaseRenewMs, this.#ended.signal).catch(() => undefined);
      if (this.#ended.signal.aborted) return;
      await this.#heard(() => this.#store.renew(this.lease));
    }
  }

  /** One write. A lost lease or a full disk stops the job; a store that fails otherwise is waited for as long as the lease lasts. */
  async #heard(write: () => Promise<LeaseAnswer>): Promise<boolean> {
    // What waited its turn behind the write that was refused.
    if (this.#abort.signal.aborted) return false;
    try {
      const { cancelRequested } = await write();
      this.#heardMs = this.#clock.monotonicMs();
      if (cancelRequested) this.#abort.abort(new MoevieError("CANCELLED", "The job was cancelled."));
      return true;
    } catch (thrown) {
      const error = asMoevieError(thrown);
      const silentMs = this.#clock.monotonicMs() - this.#heardMs;
      if (error.reason === "LEASE_LOST" || error.reason === "DISK_FULL") this.#abort.abort(error);
      else if (silentMs > this.lease.leaseMs) {
        const detail = `no renewal for ${Math.round(silentMs)} ms`;
        this.#abort.abort(new MoevieError("LEASE_LOST", "The job's lease ran out.", { detail, cause: error }));
      } else this.#log.warn({ reason: error.reason, detail: error.detail }, "a write to the job store failed");
      return false;
    }
  }
}
