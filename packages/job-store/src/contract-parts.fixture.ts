// What the cases of the contract suite share: a spec, ways to claim, wait and follow. No case here.
import type { Reason } from "@moevie/contracts";
import type { EndedJob } from "./ended-jobs.ts";
import type { TenantShares } from "./queue-order.ts";
import type { JobEvent, JobSpec, JobStore, Lease } from "./job-store.ts";

export interface ReopenOptions {
  readonly queuedMax?: number;
  readonly shares?: TenantShares;
  readonly onEnded?: (ended: EndedJob) => void;
}

export interface OpenedStore {
  readonly store: JobStore;
  /** Opens the same records again, as another process would. */
  reopen(options?: ReopenOptions): Promise<JobStore>;
  readonly folder: string;
  /** Lays hands on a stored file as a broken disk would. */
  damage(id: string, name: string, how: Damage): Promise<void>;
}

/** Another byte, an end too early, or gone. */
type Damage = "changed" | "cut" | "missing";
export const DAMAGES = ["changed", "cut", "missing"] as const;

export const SPEC: JobSpec = {
  prompt: "a dog",
  negativePrompt: "",
  seed: 7,
  width: 1280,
  height: 720,
  seconds: 2,
  fps: 24,
  quality: "standard",
  colorCorrection: true,
  steps: 4,
  guidance: 5,
  sampler: "unipc",
  model: "starter",
};

export const FACTS = {
  sizeBytes: 3,
  sha256: "00",
  codec: "h264",
  pixelFormat: "yuv420p",
  width: 1280,
  height: 720,
  fps: 24,
  frameCount: 48,
};
export const LONG_LEASE_MS = 600_000;

export async function reasonOf(work: Promise<unknown>): Promise<Reason | "none"> {
  return await work.then(
    () => "none" as const,
    (thrown: { reason: Reason }) => thrown.reason,
  );
}

export type Start = () => Promise<OpenedStore>;
export type Again = (one: OpenedStore, options?: ReopenOptions) => Promise<JobStore>;

/** Claims the next job, which must be there. */
export async function claimed(store: JobStore, leaseMs: number = LONG_LEASE_MS): Promise<Lease> {
  const lease = await store.claimNext({ owner: "test", leaseMs });
  if (lease === null) throw new Error("no job waits");
  return lease;
}

export async function until(store: JobStore, holds: () => Promise<boolean>): Promise<void> {
  const signal = AbortSignal.timeout(30_000);
  for (;;) {
    const after = store.changeCount;
    if (await holds()) return;
    await store.waitForChange({ after, signal });
  }
}

/** Reads a job's events until its end, at most `eventsMax` at a time. */
export async function follow(store: JobStore, id: string, eventsMax: number): Promise<readonly JobEvent[]> {
  const events: JobEvent[] = [];
  const signal = AbortSignal.timeout(30_000);
  for (;;) {
    const after = store.changeCount;
    const next = await store.eventsAfter(id, events.at(-1)?.sequence ?? 0, eventsMax);
    events.push(...next);
    if (events.at(-1)?.state === "cancelled") return events;
    if (next.length === 0) await store.waitForChange({ after, signal });
  }
}
