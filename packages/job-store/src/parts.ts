// Entry for what puts the stores on other ground than servers, threads and disks: the simulator of tests/sim. Services use index.ts.
export { FileArtefacts, type Disk } from "./artefacts.ts";
export { startNatsStore } from "./nats-store.ts";
export { natsNames, type NatsParts } from "./nats-streams.ts";
export { decodeJob, type StoredJob } from "./nats-record.ts";
export { SqliteKeeper, sent, type KeeperCall } from "./sqlite-keeper.ts";
export { SqliteRecords } from "./sqlite-records.ts";
export { openDatabase } from "./sqlite-schema.ts";
export { startSqliteStore, type SqliteParts } from "./sqlite-store.ts";
