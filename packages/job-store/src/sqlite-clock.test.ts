// The wall clock jumps by an hour, both ways, between any two calls: leases neither end nor stay longer, and no time is nonsense.
import { expect, test } from "vitest";
import { SPEC } from "./contract-suite.fixture.ts";
import { LeaseWatch } from "./lease-watch.ts";
import { EQUAL_SHARES } from "./queue-order.ts";
import { SqliteRecords } from "./sqlite-records.ts";
import { openDatabase } from "./sqlite-schema.ts";

const HOUR_MS = 3_600_000;
const LEASE_MS = 10_000;

test.each([HOUR_MS, -HOUR_MS])("a jump of %i ms neither ends a lease nor keeps a dead one", (jumpMs) => {
  let wallMs = 1_700_000_000_000;
  const records = new SqliteRecords(openDatabase(":memory:", 2 ** 26), () => wallMs, 10, EQUAL_SHARES);
  const watch = new LeaseWatch();
  records.submit(SPEC, {});
  const lease = records.claimNext("a", LEASE_MS);
  if (lease === null) throw new Error("no job to claim");
  expect(watch.observe(records.leases(), 0)).toEqual([]);
  wallMs += jumpMs;
  expect(watch.observe(records.leases(), LEASE_MS - 1)).toEqual([]);
  records.renew(lease);
  expect(watch.observe(records.leases(), LEASE_MS + 1)).toEqual([]);
  const [dead] = watch.observe(records.leases(), 2 * LEASE_MS + 1);
  if (dead === undefined) throw new Error("the lease is not dead");
  expect(records.expire(dead)).toBe(lease.id);
  const again = records.claimNext("b", LEASE_MS);
  expect(again?.id).toBe(lease.id);
  // Kept for a day by the wall clock, which is an hour off: it stays.
  if (again !== null) records.finish(again, { kind: "cancelled" });
  wallMs += Math.abs(jumpMs);
  expect(records.removeFinished({ jobsMax: 9, ageMsMax: 24 * HOUR_MS, clipsBytesMax: 9 })).toEqual([]);
});
