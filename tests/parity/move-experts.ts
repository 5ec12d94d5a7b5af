// Changes what running shards hold, through their PlacementService: how tests put experts elsewhere while evaluations go on.
import type { GrpcPeer } from "@moevie/runtime";
import { expect, vi } from "vitest";

export type ShardPeer = GrpcPeer<"moevie.v1.PlacementService">;

/** Experts by shard and layer, [shards][layers][experts]. */
export type Held = readonly (readonly (readonly number[])[])[];

export const CALL = { timeoutMs: 10_000 };

/** Makes a layer of a shard this, and waits until it is. */
export async function change(
  shard: ShardPeer,
  epoch: number,
  layer: number,
  experts: readonly number[],
): Promise<void> {
  const operationId = `e${epoch}`;
  const asked = { operationId, fence: 1, epoch, layer, experts: [...experts], deadlineMs: 30_000 };
  await shard.unary("ApplyPlacement", asked, CALL);
  await vi.waitFor(
    async () => {
      const operation = await shard.unary("GetOperation", { operationId }, CALL);
      expect(operation.phase).toBe("OPERATION_PHASE_DONE");
    },
    { timeout: 30_000, interval: 10 },
  );
}

/** Brings shards from `held` to `wanted`, layer by layer: first what is new, then what leaves, so that nothing is ever without a holder. */
export async function moveExperts(
  shards: readonly ShardPeer[],
  held: Held,
  wanted: Held,
  firstEpoch: number,
): Promise<number> {
  let epoch = firstEpoch;
  for (let layer = 0; layer < (wanted[0]?.length ?? 0); layer++) {
    const before = held.map((layers) => layers[layer] ?? []);
    const after = wanted.map((layers) => layers[layer] ?? []);
    const both = before.map((experts, shard) => [...new Set([...experts, ...(after[shard] ?? [])])]);
    for (const [from, to] of [
      [before, both],
      [both, after],
    ] as const) {
      epoch++;
      const at = [...shards.keys()].filter((index) => to[index]?.length !== from[index]?.length);
      await Promise.all(at.map((index) => change(shards[index]!, epoch, layer, to[index] ?? [])));
    }
  }
  return epoch;
}
