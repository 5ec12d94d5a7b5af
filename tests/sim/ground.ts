// What a simulated cluster stands on: the store's own ground (a NATS server and its links, or one machine with its disk), what can go wrong
// with it, and what the auditor sees of it. Each kind of store has one.
import type { JobSpec, JobState, JobStore } from "@moevie/job-store";
import type { Weather } from "./sim-link.ts";
import type { SimProcess, World } from "./world.ts";

export const STORE_KINDS = ["sqlite", "nats"] as const;
export type StoreKind = (typeof STORE_KINDS)[number];

export const LEASE_MS = 800;

/** A job as its record says. */
export interface SeenJob {
  readonly spec: JobSpec;
  readonly tenant: string;
  /** Order among the tenant's own jobs, least first. */
  readonly turnMs: number;
  readonly state: JobState;
  readonly attempt: number;
  /** File names. */
  readonly checkpoints: readonly string[];
  /** Events that it has had. */
  readonly events: number;
}

/** One write to a job's record. */
export interface Change {
  readonly writer: SimProcess;
  readonly id: string;
  /** Undefined: the job was deleted. */
  readonly after: SeenJob | undefined;
  /** There was no record before. */
  readonly isFirst: boolean;
  /** What a lease given by this write has to have as its token. */
  readonly tokenDue: number;
}

/** What a fault forces into a job's record, whatever the record is by now. */
export interface Forced {
  readonly state?: JobState;
  /** Added as the newest. */
  readonly checkpoint?: string;
  /** Added to the attempts. */
  readonly attempts?: number;
  /** What its tenants were given so far is forgotten. */
  readonly isUncharged?: boolean;
}

export interface Stage {
  readonly world: World;
  /** Processes that are there, dead ones that wait for their next birth among them. */
  readonly processes: () => readonly SimProcess[];
  readonly victim: () => SimProcess;
  /** Another one of its name is born after so long. */
  readonly again: (process: SimProcess, afterMs: number) => void;
}

export interface Ground {
  /** The order of claims is exact: each is checked. */
  readonly ordersExactly: boolean;
  /** Reasons for which jobs may fail on it, by what went wrong. */
  readonly excuses: ReadonlySet<string>;
  onChange: (change: Change) => void;
  /** Hears of errors that the store's code does not know. */
  onFault: (what: string) => void;
  /** The store of a process that is born. */
  open(process: SimProcess, weather: () => Weather): Promise<JobStore>;
  /** Troubles of its own kind. */
  troubles(stage: Stage): readonly (() => void)[];
  force(writer: SimProcess, id: string, forced: Forced): void;
  /** sha256 of a clip; undefined: it is not there whole and durable. */
  clipSha256(id: string, token: number): string | undefined;
  /** What is wrong with a job's events; undefined: nothing. */
  eventsFault(id: string, job: SeenJob): string | undefined;
  /** Files that no record needs, once a process has opened the store and nobody writes. */
  leftOver(jobs: ReadonlyMap<string, SeenJob>): readonly string[];
  close(): void;
}
