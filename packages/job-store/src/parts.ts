// Entry for what puts the stores on other ground than servers and files: the simulator of tests/sim. Services use index.ts.
export { startNatsStore } from "./nats-store.ts";
export { natsNames, type NatsParts } from "./nats-streams.ts";
export { decodeJob, type StoredJob } from "./nats-record.ts";
