// What a controller's lease is, wherever it lies, and the claim of this controller on it. Neither compares clocks of two processes.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import { pause } from "@moevie/runtime";
import type { Logger } from "@moevie/runtime";

/** All three throw PEER_UNAVAILABLE while whatever keeps the lease cannot be asked. */
export interface Lease {
  /** Takes the lease if nobody has it: its fence, above `above` and every earlier one, or undefined. `nowMs` never goes back. */
  take(nowMs: number, above: number): Promise<number | undefined>;
  /** Throws LEASE_LOST when somebody else has taken it. */
  renew(fence: number): Promise<void>;
  /** Others need not wait. */
  release(fence: number): Promise<void>;
}

export interface LeadershipOptions {
  readonly lease: Lease;
  readonly leaseMs: number;
  readonly renewMs: number;
  /** Milliseconds that never go back. */
  readonly now: () => number;
  readonly log: Pick<Logger, "info" | "warn">;
  /** Told whenever this controller begins or ceases to lead. */
  readonly onChange: (leads: boolean) => void;
}

/** A lease that cannot be renewed is lost once its length has passed, however long whoever keeps it cannot be asked. */
export class Leadership {
  readonly #options: LeadershipOptions;
  #fence: number | undefined;
  /** When the last renewal that succeeded was sent: others see it later. */
  #renewedMs = 0;

  constructor(options: LeadershipOptions) {
    this.#options = options;
  }

  /** Undefined while this controller does not lead. */
  get fence(): number | undefined {
    return this.#fence;
  }

  /** Takes the lease with a fence above `above`, or renews it: whether this controller leads. Throws PEER_UNAVAILABLE and LEASE_LOST. */
  async lead(above: number): Promise<boolean> {
    if (this.#fence !== undefined) {
      await this.#renew(this.#fence);
      return true;
    }
    const startMs = this.#options.now();
    const fence = await this.#options.lease.take(startMs, above);
    if (fence === undefined) return false;
    this.#fence = fence;
    this.#renewedMs = startMs;
    this.#options.log.info({ fence }, "this controller leads");
    this.#options.onChange(true);
    this.check();
    return true;
  }

  /** Throws LEASE_LOST unless the lease was renewed within its length. */
  check(): void {
    const { now, leaseMs } = this.#options;
    const silentMs = Math.round(now() - this.#renewedMs);
    if (this.#fence !== undefined && silentMs < leaseMs) return;
    const had = this.#fence === undefined ? "This controller does not lead." : `Not renewed for ${silentMs} ms.`;
    this.follow();
    throw new MoevieError("LEASE_LOST", had);
  }

  /** Renews the lease until `moving` aborts, and aborts it when the lease is lost. */
  async hold(moving: AbortController): Promise<void> {
    while (!moving.signal.aborted) {
      await pause(this.#options.renewMs, moving.signal).catch(() => undefined);
      if (moving.signal.aborted) return;
      try {
        this.check();
        await this.#renew(this.#fence ?? 0);
      } catch (lost) {
        moving.abort(lost);
      }
    }
  }

  /** Leads no more; the lease is left to run out. */
  follow(): void {
    if (this.#fence === undefined) return;
    this.#fence = undefined;
    this.#options.onChange(false);
  }

  /** Lets others lead at once. */
  async release(): Promise<void> {
    const fence = this.#fence;
    this.follow();
    if (fence !== undefined) await this.#options.lease.release(fence).catch(() => undefined);
  }

  async #renew(fence: number): Promise<void> {
    const { lease, log, now } = this.#options;
    const startMs = now();
    try {
      await lease.renew(fence);
      this.#renewedMs = startMs;
    } catch (thrown) {
      const error = asMoevieError(thrown);
      if (error.reason === "LEASE_LOST") this.follow();
      if (error.reason !== "PEER_UNAVAILABLE") throw error;
      log.warn({ detail: error.detail, err: error.cause }, `the lease was not renewed: ${error.message}`);
    }
    this.check();
  }
}
