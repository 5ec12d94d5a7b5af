// PlacementService as in protos/moevie/v1/placement.proto: what the shard holds, asked for and changed from outside.
import type { OperationPhase, PlacementOperation } from "@moevie/contracts";
import type { ModelExperts } from "@moevie/placement";
import { implement } from "@moevie/runtime";
import type { GrpcService, Loose } from "@moevie/runtime";
import type { Operation, Operations } from "./operations.ts";
import { validChange } from "./valid-change.ts";

const PHASES = {
  loading: "OPERATION_PHASE_LOADING",
  done: "OPERATION_PHASE_DONE",
  "rolled back": "OPERATION_PHASE_ROLLED_BACK",
} as const satisfies Record<Operation["phase"], OperationPhase>;

/** `freeBytes` is memory a load may take now. */
export function placementService(operations: Operations, model: ModelExperts, freeBytes: () => number): GrpcService {
  return implement("moevie.v1.PlacementService", {
    ApplyPlacement: async (request) => toWire(await operations.apply(validChange(request, model))),
    GetOperation: async ({ operationId }) => toWire(operations.get(operationId)),
    GetHoldings: async () => {
      const { holds, fence, running, leaving } = operations;
      return {
        bundleDigest: holds.digest,
        epoch: holds.epoch,
        fence,
        leaving,
        experts: [...holds.slots],
        freeBytes: freeBytes(),
        ...(running === undefined ? {} : { running: toWire(running) }),
      };
    },
  });
}

function toWire(operation: Operation): Loose<PlacementOperation> {
  const { id, phase, epoch, layer, experts } = operation;
  const why = operation.phase === "rolled back" ? operation.why : {};
  return { operationId: id, phase: PHASES[phase], epoch, layer, experts: [...experts], ...why };
}
