// What a submit hears that finds no room, whichever store refuses it; and the form of a request id's key, one a tenant.
import { MoevieError, limit } from "@moevie/contracts";
import { DEFAULT_TENANT } from "./queue-order.ts";

export function queueFull(queuedMax: number): MoevieError {
  const message = `The queue is full: ${queuedMax} jobs wait.`;
  return new MoevieError("QUEUE_FULL", message, { retryAfterMs: limit("queueRetryAfterMs") });
}

export function tenantQueueFull(tenant: string, queuedMax: number): MoevieError {
  const message = `Tenant "${tenant}" has ${queuedMax} jobs waiting; allowed: ${queuedMax} (MOEVIE_TENANT_QUEUED_MAX).`;
  return new MoevieError("TENANT_QUEUE_FULL", message, { retryAfterMs: limit("queueRetryAfterMs") });
}

/** Request ids are each tenant's own; those of the default tenant are as they were before there were tenants. */
export function requestKeyOf(tenant: string, requestId: string): string {
  return tenant === DEFAULT_TENANT ? requestId : `${tenant}/${requestId}`;
}

/** Time to a job's deadline at `nowMs` of the wall clock, as a lease carries it. */
export function remaining(
  { deadlineAtMs }: { readonly deadlineAtMs?: number },
  nowMs: number,
): { readonly remainingMs?: number } {
  return deadlineAtMs === undefined ? {} : { remainingMs: Math.max(0, deadlineAtMs - nowMs) };
}
