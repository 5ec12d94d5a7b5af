// Files that no record needs are removed by processes that look at another's work: what was finished between their two looks stays.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { FileArtefacts } from "./artefacts.ts";
import { FACTS, LONG_LEASE_MS, SPEC } from "./contract-parts.fixture.ts";
import { EQUAL_SHARES } from "./queue-order.ts";
import { SqliteKeeper, type KeeperCall } from "./sqlite-keeper.ts";
import { SqliteRecords } from "./sqlite-records.ts";
import { openDatabase } from "./sqlite-schema.ts";
import { startSqliteStore, type SqliteJobStore } from "./sqlite-store.ts";

const folder = mkdtempSync(join(tmpdir(), "moevie-tidy-"));
afterAll(() => rmSync(folder, { recursive: true }));

const records = new SqliteRecords(openDatabase(":memory:", 2 ** 26), () => Date.now(), 10, EQUAL_SHARES);

/** A store of a process of its own; `mayGo` holds up its calls. */
async function storeOf(mayGo: (call: KeeperCall) => Promise<void>): Promise<SqliteJobStore> {
  return await startSqliteStore({
    artefacts: new FileArtefacts(folder),
    startKeeper: (hear) => {
      const keeper = new SqliteKeeper({ records, retention: undefined, monotonicMs: () => 0, post: hear });
      queueMicrotask(() => hear({ kind: "opened" }));
      return (call) => {
        if (call.method !== "close") void mayGo(call).then(() => keeper.answer(call));
      };
    },
  });
}

test("a clip that is finished between a look at the files and one at the records stays", async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const { promise: looked, resolve: look } = Promise.withResolvers<void>();
  let isSlow = false;
  const gateway = await storeOf(async ({ method }) => {
    if (!isSlow || method !== "filesNeeded") return;
    look();
    await released;
  });
  const scheduler = await storeOf(() => Promise.resolve());
  const { id } = await gateway.submit(SPEC);
  const lease = await scheduler.claimNext({ owner: "scheduler", leaseMs: LONG_LEASE_MS });
  if (lease === null) throw new Error("no job to claim");
  isSlow = true;
  const cancelled = gateway.requestCancel(id);
  await looked;
  const attempt = await scheduler.artefacts.createAttempt(lease);
  await attempt.write(Buffer.from("clip"));
  await attempt.commit();
  await scheduler.finish(lease, { kind: "completed", artefact: FACTS });
  release();
  await cancelled;
  expect(await scheduler.artefacts.names(id)).toEqual([`${lease.token}.mp4`]);
  await scheduler.delete(id);
  expect(await scheduler.artefacts.ids()).toEqual([]);
});
