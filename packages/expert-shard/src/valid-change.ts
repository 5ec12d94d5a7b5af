// Reads a change of a layer as it comes over the wire. Pure; nothing behind it checks again.
import { MoevieError } from "@moevie/contracts";
import type { ApplyPlacementRequest } from "@moevie/contracts";
import type { ModelExperts } from "@moevie/placement";

const DEADLINE_MS_MAX = 3_600_000;
const ID = /^[\w.:-]{1,64}$/;

export interface ValidChange {
  readonly id: string;
  readonly fence: number;
  readonly epoch: number;
  readonly layer: number;
  /** Ascending. */
  readonly experts: readonly number[];
  readonly deadlineMs: number;
}

/** Throws INVALID_FIELD naming field, value and what is allowed. */
export function validChange(request: ApplyPlacementRequest, model: ModelExperts): ValidChange {
  const { operationId: id, fence, epoch, layer, deadlineMs } = request;
  if (!ID.test(id)) throw invalid("operation_id", id, "1 to 64 letters, digits, dots, colons, dashes and underscores");
  if (!Number.isSafeInteger(fence)) throw invalid("fence", fence, `up to ${Number.MAX_SAFE_INTEGER}`);
  if (!Number.isSafeInteger(epoch)) throw invalid("epoch", epoch, `up to ${Number.MAX_SAFE_INTEGER}`);
  if (layer >= model.layers) throw invalid("layer", layer, `0 to ${model.layers - 1}`);
  if (deadlineMs < 1 || deadlineMs > DEADLINE_MS_MAX)
    throw invalid("deadline_ms", deadlineMs, `1 to ${DEADLINE_MS_MAX}`);
  const experts = request.experts.toSorted((a, b) => a - b);
  experts.forEach((expert, at) => {
    if (expert >= model.experts) throw invalid("experts", expert, `0 to ${model.experts - 1}`);
    if (expert === experts[at - 1]) throw invalid("experts", expert, "once");
  });
  return { id, fence, epoch, layer, experts, deadlineMs };
}

function invalid(field: string, value: unknown, allowed: string): MoevieError {
  const description = `is ${JSON.stringify(value)}; allowed: ${allowed}`;
  return new MoevieError("INVALID_FIELD", `${field} ${description}`, { violations: [{ field, description }] });
}
