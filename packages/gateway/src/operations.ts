// google.longrunning.Operations over jobs: an operation is a job seen from the waiting side.
import { MoevieError, asMoevieError, invalidFields, limit, violation } from "@moevie/contracts";
import { isFinal, type JobRecord } from "@moevie/job-store";
import type { CallInfo, Handlers } from "@moevie/runtime";
import type { Gateway } from "./gateway.ts";
import { jobIdOf } from "./names.ts";
import { pageSizeOf } from "./page-size.ts";
import { storeChanged } from "./store-change.ts";
import { operationMessage } from "./video-message.ts";

export function operationsHandlers(gateway: Gateway): Handlers<"google.longrunning.Operations"> {
  const { store, calls } = gateway;
  return {
    GetOperation: async ({ name }) => operationMessage(await find(gateway, name)),
    ListOperations: async ({ filter, pageSize, pageToken }) => {
      if (filter !== "") throw invalidFields([violation("filter", filter, "empty")]);
      const page = await store.list({ pageSize: pageSizeOf(pageSize), pageToken });
      return {
        operations: page.jobs.map((job) => operationMessage(job)),
        nextPageToken: page.nextPageToken,
      };
    },
    CancelOperation: async ({ name }) => {
      await find(gateway, name);
      await store.requestCancel(jobIdOf(name, "operations"));
      return {};
    },
    // Deleting an operation says "not interested in the answer"; it does not cancel the work (google.longrunning).
    DeleteOperation: async ({ name }) => {
      const job = await find(gateway, name);
      if (isFinal(job.state)) await store.delete(job.id);
      return {};
    },
    WaitOperation: async ({ name, timeout }, call) => {
      const waitMs = timeout === null ? limit("operationWaitMsMax") : timeout.seconds * 1000 + timeout.nanos / 1e6;
      const job = await calls.during("waits", () => waitForEnd(gateway, name, waitMs, call));
      return operationMessage(job);
    },
  };
}

async function find(gateway: Gateway, name: string): Promise<JobRecord> {
  try {
    return await gateway.store.get(jobIdOf(name, "operations"));
  } catch (thrown) {
    if (asMoevieError(thrown).reason !== "VIDEO_NOT_FOUND") throw thrown;
    throw new MoevieError("OPERATION_NOT_FOUND", `There is no ${name}.`, { cause: thrown });
  }
}

/** The record once it ended, or as it is when the time is over or the gateway drains. */
async function waitForEnd(gateway: Gateway, name: string, waitMs: number, call: CallInfo): Promise<JobRecord> {
  const endMs = performance.now() + Math.min(waitMs, limit("operationWaitMsMax"));
  for (;;) {
    const seen = gateway.store.changeCount;
    const job = await find(gateway, name);
    const leftMs = endMs - performance.now();
    if (isFinal(job.state) || leftMs <= 0 || !(await storeChanged(gateway, call, seen, leftMs))) return job;
  }
}
