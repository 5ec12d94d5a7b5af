// What the store's thread does with its connection: answers calls one after another, looks for changes by other processes, takes back
// jobs whose lease died and removes finished ones beyond what is kept. Knows no thread and no timer: the simulator plays it, too.
import { asMoevieError, type MoevieErrorOptions, type Reason } from "@moevie/contracts";
import type { EndedJob } from "./ended-jobs.ts";
import type { Retention } from "./job-store.ts";
import { LeaseWatch } from "./lease-watch.ts";
import type { SqliteRecords } from "./sqlite-records.ts";

/** A MoevieError on its way between threads. */
export interface SentError extends MoevieErrorOptions {
  readonly reason: Reason;
  readonly message: string;
}

export interface KeeperCall {
  /** Above 0. */
  readonly call: number;
  readonly method: keyof SqliteRecords;
  readonly values: readonly unknown[];
}

export type KeeperMessage =
  | { readonly kind: "opened" }
  | { readonly kind: "changed" }
  /** The store itself took a job's lease or removed the job: its files may be left over. */
  | { readonly kind: "taken"; readonly id: string }
  | { readonly kind: "ended"; readonly ended: EndedJob }
  /** Something an operator should look at. */
  | { readonly kind: "notice"; readonly line: string }
  | { readonly kind: "result"; readonly call: number; readonly value: unknown }
  | { readonly kind: "error"; readonly call: number; readonly error: SentError };

export interface KeeperParts {
  readonly records: SqliteRecords;
  readonly retention: Retention | undefined;
  /** Milliseconds that only grow: leases are observed by them. */
  readonly monotonicMs: () => number;
  readonly post: (message: KeeperMessage) => void;
}

/** Pause between two looks. */
export const LOOK_MS = 25;
/** Pause between two looks for finished jobs that are to go. */
const RETENTION_LOOK_MS = 1000;

export class SqliteKeeper {
  readonly #of: KeeperParts;
  readonly #leases = new LeaseWatch();
  readonly #deadlines = new LeaseWatch();
  #version: number;
  #retentionLookMs: number;

  constructor(parts: KeeperParts) {
    this.#of = parts;
    parts.records.onEnded = (ended) => parts.post({ kind: "ended", ended });
    this.#version = parts.records.dataVersion();
    this.#retentionLookMs = parts.monotonicMs();
  }

  answer({ call, method, values }: KeeperCall): void {
    const { records, post } = this.#of;
    try {
      const work = records[method] as (...values: unknown[]) => unknown;
      post({ kind: "result", call, value: work.apply(records, [...values]) });
    } catch (thrown) {
      post({ kind: "error", call, error: sent(thrown) });
    }
  }

  /** Never throws: calls report a busy or full store, the next look tries again. */
  look(): void {
    try {
      this.#look();
    } catch {
      // As above.
    }
  }

  #look(): void {
    const { records, retention, monotonicMs, post } = this.#of;
    const version = records.dataVersion();
    if (version !== this.#version) post({ kind: "changed" });
    this.#version = version;
    for (const dead of this.#leases.observe(records.leases(), monotonicMs())) {
      const id = records.expire(dead);
      if (id !== undefined) post({ kind: "taken", id });
    }
    const overdue = this.#deadlines.observe(records.overdue(), monotonicMs());
    for (const job of overdue) records.lapse(job);
    if (overdue.length > 0) post({ kind: "changed" });
    if (retention === undefined || monotonicMs() < this.#retentionLookMs) return;
    this.#retentionLookMs = monotonicMs() + RETENTION_LOOK_MS;
    for (const id of records.removeFinished(retention)) post({ kind: "taken", id });
  }
}

export function sent(thrown: unknown): SentError {
  const { reason, message, detail, violations, retryAfterMs } = asMoevieError(thrown);
  return {
    reason,
    message,
    violations,
    ...(detail === undefined ? {} : { detail }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}
