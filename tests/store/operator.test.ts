// What an operator can do to a store by accident: a full disk, a folder that turns read-only, a server that is gone for a while, two
// clusters on one folder. Nothing accepted is lost, what is refused says why, and work goes on when the cause is gone.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { openNatsStore, openSqliteStore, type JobStore, type SqliteJobStore } from "@moevie/job-store";
import { FACTS, SPEC, claimed, reasonOf } from "@moevie/job-store/contract-suite";
import { NatsServer } from "../support/nats-server.ts";

const DISK_BYTES = 4 * 2 ** 20;

const closers: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "moevie-operator-"));
  closers.push(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function opened(path: string): Promise<SqliteJobStore> {
  const store = await openSqliteStore(join(path, "jobs.db"));
  closers.push(() => store.close());
  return store;
}

/** A small disk of its own. Mounting one takes root's rights: without them the test fails. */
function smallDisk(): string {
  const path = folder();
  mount("-t", "tmpfs", "-o", `size=${DISK_BYTES}`, "none", path);
  closers.push(() => void spawnSync("umount", ["--lazy", path]));
  return path;
}

function mount(...args: readonly string[]): void {
  const { status, stderr } = spawnSync("mount", args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`the disk is not mounted as asked: ${stderr}`);
}

async function finish(store: JobStore): Promise<string> {
  const lease = await claimed(store);
  const attempt = await store.artefacts.createAttempt(lease);
  await attempt.write(Buffer.from("clip"));
  await attempt.commit();
  return (await store.finish(lease, { kind: "completed", artefact: FACTS })).id;
}

describe("a folder", () => {
  test("on a disk that is full: DISK_FULL says so, what was accepted stays, and all goes on when there is room", async () => {
    const disk = smallDisk();
    const store = await opened(disk);
    const first = await store.submit(SPEC);
    const lease = await claimed(store);
    await store.saveCheckpoint(lease, [Buffer.from("state")]);
    const accepted = [(await store.submit(SPEC)).id];
    const filler = join(disk, "filler");
    expect(() => writeFileSync(filler, Buffer.alloc(DISK_BYTES))).toThrow("ENOSPC");
    const flood = (async () => {
      for (let count = 0; count < 200; count++) accepted.push((await store.submit(SPEC)).id);
    })();
    expect(await reasonOf(flood)).toBe("DISK_FULL");
    await expect(store.saveCheckpoint(lease, [new Uint8Array(2 ** 20)])).rejects.toThrow("There is no room left");
    expect((await store.get(first.id)).state.kind).toBe("running");
    for (const id of accepted) expect((await store.get(id)).state.kind).toBe("queued");
    expect(Buffer.from((await store.loadCheckpoint(first.id)) ?? []).toString()).toBe("state");
    rmSync(filler);
    expect(await store.renew(lease)).toEqual({ cancelRequested: false });
    await store.finish(lease, { kind: "cancelled" });
    expect(await finish(store)).toBe(accepted[0]);
  });

  test("that became read-only: the start is refused and names the setting, nothing is lost, and all goes on when it can be written", async () => {
    const disk = smallDisk();
    const before = await openSqliteStore(join(disk, "jobs.db"));
    const { id } = await before.submit(SPEC);
    const lease = await claimed(before);
    await before.saveCheckpoint(lease, [Buffer.from("state")]);
    await before.close();
    mount("-o", "remount,ro", disk);
    const refused = openSqliteStore(join(disk, "jobs.db"));
    expect(await reasonOf(refused)).toBe("CONFIG_INVALID");
    await expect(refused).rejects.toThrow("MOEVIE_DATA");
    mount("-o", "remount,rw", disk);
    const store = await opened(disk);
    expect((await store.get(id)).state.kind).toBe("running");
    expect(Buffer.from((await store.loadCheckpoint(id)) ?? []).toString()).toBe("state");
    expect((await store.finish(lease, { kind: "completed", artefact: FACTS })).state.kind).toBe("completed");
  });

  test("that two clusters share: each job is claimed once, and one that starts under the other's name costs no job", async () => {
    const path = folder();
    const [one, other] = [await opened(path), await opened(path)];
    const ids: string[] = [];
    for (let count = 0; count < 20; count++) ids.push((await (count % 2 === 0 ? one : other).submit(SPEC)).id);
    const claim = { owner: "scheduler", leaseMs: 600_000 };
    const held = await one.claimNext(claim);
    if (held === null) throw new Error("no job to claim");
    expect(await other.takeBack("scheduler")).toBe(1);
    expect(await reasonOf(one.finish(held, { kind: "completed", artefact: FACTS }))).toBe("LEASE_LOST");
    const ended: string[] = [];
    const work = async (store: JobStore): Promise<void> => {
      for (let lease = await store.claimNext(claim); lease !== null; lease = await store.claimNext(claim))
        ended.push((await store.finish(lease, { kind: "completed", artefact: FACTS })).id);
    };
    await Promise.all([work(one), work(other)]);
    expect(ended.sort()).toEqual(ids.sort());
  });
});

describe("a NATS server", () => {
  const LEASE_MS = 2000;
  /** A minute in small: longer than three leases and two calls. */
  const AWAY_MS = 7000;

  test("that is gone for more than three leases: calls say it does not answer, then the owner goes on with its lease and ends the job", async () => {
    const server = await NatsServer.start();
    closers.push(() => server.close());
    const store = await openNatsStore({ servers: [server.url] });
    closers.push(() => store.close());
    const other = await openNatsStore({ servers: [server.url] });
    closers.push(() => other.close());
    const { id } = await store.submit(SPEC);
    const waiting = await store.submit(SPEC);
    const lease = await store.claimNext({ owner: "a", leaseMs: LEASE_MS });
    if (lease === null) throw new Error("no job to claim");
    await store.saveCheckpoint(lease, [Buffer.from("state")]);
    await server.kill();
    await expect(store.renew(lease)).rejects.toThrow("The NATS server does not answer.");
    await new Promise((resolve) => setTimeout(resolve, AWAY_MS));
    await server.again();
    const signal = AbortSignal.timeout(30_000);
    for (;;) {
      signal.throwIfAborted();
      const reason = await store.renew(lease).then(
        () => "held",
        (thrown: unknown) => (thrown as { reason: string }).reason,
      );
      if (reason === "held") break;
      expect(reason).toBe("PEER_UNAVAILABLE");
    }
    await store.finish(lease, { kind: "completed", artefact: FACTS });
    expect((await other.get(id)).state.kind).toBe("completed");
    const next = await other.claimNext({ owner: "b", leaseMs: LEASE_MS });
    expect(next?.id).toBe(waiting.id);
  });
});
