// One shard as the controller sees it: what it holds, and a layer changed to an absolute target.
import { MoevieError, asMoevieError, isReason } from "@moevie/contracts";
import type { ApplyPlacementRequest, Holdings, PlacementOperation } from "@moevie/contracts";
import { GrpcPeer, pause } from "@moevie/runtime";
import type { CallOptions, Loose } from "@moevie/runtime";

const CALL_MS_MAX = 2000;
const POLL_MS = 20;

export interface LayerTarget {
  readonly operationId: string;
  readonly fence: number;
  readonly epoch: number;
  readonly layer: number;
  readonly experts: readonly number[];
  readonly deadlineMs: number;
}

export class ShardControl {
  readonly #peer: GrpcPeer<"moevie.v1.PlacementService">;

  constructor(address: string) {
    this.#peer = new GrpcPeer("moevie.v1.PlacementService", address);
  }

  /** Throws PEER_UNAVAILABLE or DEADLINE. */
  holdings(signal: AbortSignal): Promise<Holdings> {
    return this.#peer.unary("GetHoldings", {}, { timeoutMs: CALL_MS_MAX, signal });
  }

  /** Resolves once the shard's layer is the target. Throws what the operation was refused or rolled back with. */
  async apply(target: LayerTarget, signal: AbortSignal): Promise<void> {
    const options = { timeoutMs: CALL_MS_MAX, signal };
    const request = { ...target, experts: [...target.experts] };
    let operation = await this.#begin(request, options);
    while (operation.phase === "OPERATION_PHASE_LOADING") {
      await pause(POLL_MS, signal);
      operation = await this.#peer.unary("GetOperation", { operationId: target.operationId }, options);
    }
    if (operation.phase === "OPERATION_PHASE_DONE") return;
    throw new MoevieError(isReason(operation.reason) ? operation.reason : "INTERNAL", operation.message);
  }

  /** Waits for an operation that somebody else began. */
  async #begin(request: Loose<ApplyPlacementRequest>, options: CallOptions): Promise<PlacementOperation> {
    const endMs = performance.now() + (request.deadlineMs ?? 0);
    for (;;) {
      try {
        return await this.#peer.unary("ApplyPlacement", request, options);
      } catch (thrown) {
        if (asMoevieError(thrown).reason !== "QUEUE_FULL" || performance.now() > endMs) throw thrown;
        await pause(POLL_MS, options.signal);
      }
    }
  }

  close(): void {
    this.#peer.close();
  }
}
