// Step 1: parse, de-duplicate by request_id, submit, answer with a long-running Operation.
import { createHash } from "node:crypto";
import {
  DEADLINE_SECONDS,
  PRIORITIES,
  TENANT_ALLOWED,
  TENANT_KEY,
  asMoevieError,
  checkFields,
  isTenant,
  priorityName,
  violation,
  wrongNumber,
  type CreateVideoRequest,
} from "@moevie/contracts";
import { traceIdOf, type CallInfo } from "@moevie/runtime";
import { DEFAULT_TENANT, type JobRecord } from "@moevie/job-store";
import type { Gateway } from "./gateway.ts";
import { checkRequestId } from "./names.ts";
import { parseVideoSpec, type ValidVideoSpec } from "./valid-video-spec.ts";

/** Why a job that is right is refused all the same. */
export const REFUSALS = ["QUEUE_FULL", "TENANT_QUEUE_FULL"] as const;

/** The accepted job, or the spec as it would run when the caller only wanted it checked. Throws INVALID_FIELD, REQUEST_ID_REUSED, QUEUE_FULL, TENANT_QUEUE_FULL. */
export async function createVideo(
  gateway: Gateway,
  request: CreateVideoRequest,
  call: CallInfo,
): Promise<JobRecord | ValidVideoSpec> {
  checkRequestId(request.requestId);
  const { tenant = DEFAULT_TENANT } = call;
  const priority = priorityName(request.priority);
  checkFields([
    ...(isTenant(tenant) ? [] : [violation(TENANT_KEY, tenant, TENANT_ALLOWED)]),
    ...(priority === undefined ? [violation("priority", request.priority, Object.values(PRIORITIES).join(", "))] : []),
    ...wrongNumber("deadline_seconds", request.deadlineSeconds, DEADLINE_SECONDS),
  ]);
  const { spec, warnings } = parseVideoSpec(request.spec, gateway.model);
  if (request.validateOnly) return { spec, warnings };
  return gateway.tracing.span("create-video", { traceparent: call.traceparent }, async (span) => {
    const submitted = gateway.store.submit(spec, {
      ...(request.requestId === ""
        ? {}
        : { requestId: request.requestId.toLowerCase(), requestDigest: digestOf(request) }),
      traceparent: span.traceparent,
      tenant,
      priority: priority ?? "normal",
      ...(typeof request.deadlineSeconds === "number" ? { deadlineMs: Math.ceil(request.deadlineSeconds * 1000) } : {}),
      bundleDigest: gateway.bundleDigest,
      warnings,
    });
    const submission = await submitted.catch((thrown: unknown) => {
      const { reason } = asMoevieError(thrown);
      if (REFUSALS.some((known) => known === reason)) gateway.metrics.add("moevie_jobs_refused_total", { reason });
      throw thrown;
    });
    if (!submission.repeated) {
      gateway.metrics.add("moevie_jobs_submitted_total");
      const prompt = gateway.logPrompts ? { prompt: spec.prompt } : {};
      gateway.log.info({ job: submission.id, trace: traceIdOf(span.traceparent), ...prompt }, "job accepted");
    }
    return submission;
  });
}

/** Fields that younger callers know: left out they are no part of a body's digest, as before they were there. */
const LATER_FIELDS = ["grid", "initialNoise", "saveLatents", "saveFrames"];

/** The body as the caller sent it: a repeat with another body is refused. */
function digestOf(request: CreateVideoRequest): string {
  const entries: [string, unknown][] = Object.entries(request.spec ?? {})
    .filter(([name, value]) => value !== "QUALITY_UNSPECIFIED" && !(value === "" && LATER_FIELDS.includes(name)))
    .toSorted(([a], [b]) => (a < b ? -1 : 1));
  const { priority, deadlineSeconds } = request;
  // Left out they are no part of it, as before they were there.
  if (typeof deadlineSeconds === "number") entries.push(["deadline_seconds", deadlineSeconds]);
  if (priorityName(priority) !== "normal") entries.push(["priority", priority]);
  return createHash("sha256").update(JSON.stringify(entries)).digest("hex");
}
