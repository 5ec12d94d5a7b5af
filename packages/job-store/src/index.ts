// Public entry of job-store: the interface, the stores and the state machine's types.
export * from "./job-store.ts";
export { DEADLINE_PASSED, isFinal, JOB_STATE_KINDS } from "./job-state.ts";
export type { ArtefactFacts, JobError, JobState, JobStateKind } from "./job-state.ts";
export type { ArtefactAttempt, Artefacts, AttemptName, Companion, OpenArtefact } from "./artefact-names.ts";
export { openSqliteStore, type SqliteJobStore, type SqliteStoreOptions } from "./sqlite-store.ts";
export type { NatsStoreOptions } from "./nats-store.ts";
export { openNatsStore } from "./open-nats-store.ts";
export { openCheckpointBucket } from "./checkpoint-s3.ts";
export { openCheckpointFolder } from "./checkpoint-folder.ts";
export type { LargeCheckpoints } from "./checkpoint-place.ts";
export type { NatsAccess } from "./nats-connection.ts";
export { DEFAULT_TENANT, JOB_PRIORITIES, type JobPriority, type TenantShares } from "./queue-order.ts";
export { countEnd, declareEnds, type EndedJob } from "./ended-jobs.ts";
export { openJobStore, STORE_SETTINGS } from "./config.ts";
