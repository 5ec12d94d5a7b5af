// What a planted fault is: something put between the real code and what it stands on.
import type { JobStore } from "@moevie/job-store";
import type { NatsParts, SqliteRecords } from "@moevie/job-store/parts";
import type { Ground, StoreKind } from "./ground.ts";
import type { SimProcess, World } from "./world.ts";

export interface MutationScene {
  readonly world: World;
  readonly ground: Ground;
  readonly process: SimProcess;
}

/** A fault planted into what the real code stands on; each must be found. */
export interface Mutation {
  readonly name: string;
  /** The only store that can have it. Default: both. */
  readonly only?: StoreKind;
  readonly clock?: (scene: MutationScene) => SimProcess["clock"];
  readonly nats?: (parts: NatsParts, scene: MutationScene) => NatsParts;
  readonly sqlite?: (records: SqliteRecords, scene: MutationScene) => SqliteRecords;
  readonly store?: (store: JobStore, scene: MutationScene) => JobStore;
}
