// One shard as a donor: what it holds, and experts of a layer loaded beside those it has.
import { createHash } from "node:crypto";
import { MoevieError, asMoevieError, isReason } from "@moevie/contracts";
import type { Holdings } from "@moevie/contracts";
import { GrpcPeer, pause } from "@moevie/runtime";

const CALL_MS_MAX = 2000;
const POLL_MS = 50;
/** Longest a shard may load one layer. */
const OPERATION_MS_MAX = 120_000;

export class DonorShard {
  readonly #peer: GrpcPeer<"moevie.v1.PlacementService">;
  readonly #signal: AbortSignal;

  constructor(address: string, signal: AbortSignal) {
    this.#peer = new GrpcPeer("moevie.v1.PlacementService", address);
    this.#signal = signal;
  }

  /** Throws PEER_UNAVAILABLE or DEADLINE. */
  holdings(): Promise<Holdings> {
    return this.#peer.unary("GetHoldings", {}, { timeoutMs: CALL_MS_MAX, signal: this.#signal });
  }

  /**
   * Resolves once the shard holds `added` of the layer beside what it had. Whoever asks the same of a shard that is as it was asks for the
   * same operation; one that is under way is waited for. Throws what it was refused or rolled back with, DRAINING
   * where the shard leaves.
   */
  async load(layer: number, added: readonly number[]): Promise<void> {
    const endMs = performance.now() + OPERATION_MS_MAX;
    for (;;) {
      try {
        await this.#loadOnce(layer, added);
        return;
      } catch (thrown) {
        const { reason } = asMoevieError(thrown);
        const isBusy = reason === "QUEUE_FULL" || reason === "STALE_PLACEMENT";
        if (!isBusy || performance.now() > endMs) throw thrown;
        await pause(POLL_MS, this.#signal);
      }
    }
  }

  close(): void {
    this.#peer.close();
  }

  async #loadOnce(layer: number, added: readonly number[]): Promise<void> {
    const { epoch: before, experts: held, fence, leaving } = await this.holdings();
    if (leaving) throw new MoevieError("DRAINING", "The shard is going away.");
    const had = held.filter((slot) => slot.layer === layer).map(({ expert }) => expert);
    const experts = [...new Set([...had, ...added])].sort((a, b) => a - b);
    if (experts.length === had.length) return;
    const epoch = before + 1;
    const hash = createHash("sha256").update(experts.join()).digest("hex").slice(0, 16);
    const operationId = `donor.${epoch}.${layer}.${hash}`;
    const options = { timeoutMs: CALL_MS_MAX, signal: this.#signal };
    const asked = { operationId, fence, epoch, layer, experts, deadlineMs: OPERATION_MS_MAX };
    let operation = await this.#peer.unary("ApplyPlacement", asked, options);
    while (operation.phase === "OPERATION_PHASE_LOADING") {
      await pause(POLL_MS, this.#signal);
      operation = await this.#peer.unary("GetOperation", { operationId }, options);
    }
    if (operation.phase === "OPERATION_PHASE_DONE") return;
    throw new MoevieError(isReason(operation.reason) ? operation.reason : "INTERNAL", operation.message);
  }
}
