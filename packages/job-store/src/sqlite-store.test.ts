// The SQLite store against the contract suite, and what only a file shared by processes can do.
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SCHEMA_STEPS } from "./sqlite-schema.ts";
import type { JobStore, Lease, Retention } from "./job-store.ts";
import { FACTS, SPEC, claimed, jobStoreContract, reasonOf, until } from "./contract-suite.fixture.ts";
import { openSqliteStore } from "./sqlite-store.ts";
import { diskError } from "./artefacts.ts";

const DAY_MS = 86_400_000;
const CLAIM = { owner: "test", leaseMs: 600_000 };
const KEEP_ALL: Retention = { jobsMax: 100, ageMsMax: 99_999 * DAY_MS, clipsBytesMax: 1e9 };

/** Writes previews until the store refuses one. */
async function fill(store: JobStore, lease: Lease): Promise<void> {
  for (let count = 0; count < 100; count += 1)
    await store.appendEvent(lease, { previewPng: new Uint8Array(60_000 + count * 1000) });
}

jobStoreContract("sqlite", async () => {
  const folder = await mkdtemp(join(tmpdir(), "moevie-store-"));
  const path = join(folder, "jobs.db");
  const store = await openSqliteStore(path);
  return {
    folder,
    store,
    reopen: (options) => openSqliteStore(path, options),
    async damage(id, name, how) {
      const file = store.artefacts.path(id, name);
      if (how === "missing") await rm(file);
      else await writeFile(file, how === "cut" ? "123" : "123x");
    },
  };
});

describe("sqlite file", () => {
  let folder = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "moevie-store-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  test("a file that is no database is refused as corrupt", async () => {
    await writeFile(join(folder, "jobs.db"), "not a database at all".repeat(400));
    expect(await reasonOf(openSqliteStore(join(folder, "jobs.db")))).toBe("STORE_CORRUPT");
  });

  test("a damaged page is found when the store opens", async () => {
    const path = join(folder, "jobs.db");
    const store = await openSqliteStore(path);
    for (let index = 0; index < 20; index += 1) await store.submit({ ...SPEC, prompt: "x".repeat(1000) });
    await store.close();
    const { open } = await import("node:fs/promises");
    const file = await open(path, "r+");
    await file.write(Buffer.alloc(4096 * 4, 0xff), 0, 4096 * 4, 4096);
    await file.close();
    expect(await reasonOf(openSqliteStore(path))).toBe("STORE_CORRUPT");
  });

  test("a job stored before there were qualities and colour correction is as jobs were then", async () => {
    const path = join(folder, "jobs.db");
    const { quality: _quality, colorCorrection: _correction, ...old } = SPEC;
    const store = await openSqliteStore(path);
    const { id } = await store.submit(old as typeof SPEC);
    expect((await store.get(id)).spec).toEqual({ ...SPEC, quality: "standard" });
    await store.close();
  });

  test("a schema from a newer build is refused, not changed", async () => {
    const db = new DatabaseSync(join(folder, "jobs.db"));
    db.exec("PRAGMA user_version = 99");
    db.close();
    expect(await reasonOf(openSqliteStore(join(folder, "jobs.db")))).toBe("UNSUPPORTED");
  });

  test("a file of the schema before is brought up with its jobs; their checkpoints are begun anew", async () => {
    const path = join(folder, "jobs.db");
    const db = new DatabaseSync(path);
    db.exec(`${SCHEMA_STEPS[0]} PRAGMA user_version = 1;
      INSERT INTO jobs VALUES (1, 'a', NULL, NULL, 'queued', '{"kind":"queued"}', '{}', '{}', '[]', 0, 0, 0, 0);
      INSERT INTO checkpoints VALUES (1, x'00');`);
    db.close();
    const store = await openSqliteStore(path);
    expect((await claimed(store)).id).toBe("a");
    expect(await store.loadCheckpoint("a")).toBeNull();
    await store.close();
  });

  test("no room is DISK_FULL, and what was accepted before stays readable", async () => {
    const store = await openSqliteStore(join(folder, "jobs.db"), { bytesMax: 120_000 });
    const first = await store.submit(SPEC);
    const lease = await claimed(store);
    expect(await reasonOf(fill(store, lease))).toBe("DISK_FULL");
    expect((await store.get(first.id)).state.kind).toBe("running");
    expect(await reasonOf(store.renew(lease))).toBe("none");
    await store.close();
    expect(diskError(Object.assign(new Error("x"), { code: "ENOSPC" }))).toMatchObject({ reason: "DISK_FULL" });
  });

  test("a folder that cannot be made is a setting's error, not a crash", async () => {
    await writeFile(join(folder, "file"), "");
    expect(await reasonOf(openSqliteStore(join(folder, "file", "jobs.db")))).toBe("CONFIG_INVALID");
  });

  test("what a killed scheduler left goes when the store opens: folders of no job and clips of leases that ended", async () => {
    const path = join(folder, "jobs.db");
    const store = await openSqliteStore(path);
    const [ended, waiting, live] = [await store.submit(SPEC), await store.submit(SPEC), await store.submit(SPEC)];
    const finished = await claimed(store);
    await store.finish(finished, { kind: "completed", artefact: FACTS });
    await store.release(await claimed(store));
    const again = await claimed(store);
    const held = await claimed(store);
    await store.release(again);
    const left = async (id: string, ...tokens: number[]): Promise<void> => {
      for (const token of tokens) await (await store.artefacts.createAttempt({ id, token })).commit();
    };
    await left("00000000-0000-0000-0000-000000000000", 1);
    await left(ended.id, finished.token, finished.token + 1);
    await left(waiting.id, again.token);
    await left(live.id, held.token - 1, held.token);
    await store.close();
    const other = await openSqliteStore(path);
    const { artefacts } = other;
    expect(new Set(await artefacts.ids())).toEqual(new Set([ended.id, waiting.id, live.id]));
    expect(await artefacts.names(ended.id)).toEqual([`${finished.token}.mp4`]);
    expect(await artefacts.names(waiting.id)).toEqual([]);
    expect(await artefacts.names(live.id)).toEqual([`${held.token}.mp4`]);
    await other.close();
  });

  test("finished jobs beyond what is kept go with clip and events, the first to end first; unfinished ones stay", async () => {
    const path = join(folder, "jobs.db");
    const all = await openSqliteStore(path);
    const waiting = await all.submit(SPEC);
    const finished = [];
    for (let count = 0; count < 5; count += 1) {
      finished.push(await all.submit(SPEC));
      await all.release(await claimed(all));
    }
    for (let lease = await all.claimNext(CLAIM); lease !== null; lease = await all.claimNext(CLAIM)) {
      await (await all.artefacts.createAttempt(lease)).commit();
      if (lease.id !== waiting.id)
        await all.finish(lease, { kind: "completed", artefact: { ...FACTS, sizeBytes: 10 } });
    }
    await all.close();
    const db = new DatabaseSync(path);
    const finishedAt = db.prepare(
      "UPDATE jobs SET state_json = json_set(state_json, '$.finishedAtMs', ?) WHERE id = ?",
    );
    for (const [place, { id }] of finished.entries()) finishedAt.run(DAY_MS * (place + 1), id);
    finishedAt.run(9_999_999_999_999, finished[4]?.id ?? "");
    db.close();
    const keeps = async (retention: Partial<Retention>, ...ids: (string | undefined)[]): Promise<void> => {
      const store = await openSqliteStore(path, { retention: { ...KEEP_ALL, ...retention } });
      await until(store, async () => (await store.artefacts.ids()).length <= ids.length);
      const { jobs } = await store.list({ pageSize: 100 });
      expect(jobs.map(({ id }) => id).toReversed()).toEqual(ids);
      expect(new Set(await store.artefacts.ids())).toEqual(new Set(ids));
      await store.close();
    };
    const [, second, third, fourth, fifth] = finished.map(({ id }) => id);
    await keeps({ jobsMax: 4 }, waiting.id, second, third, fourth, fifth);
    await keeps({ clipsBytesMax: 39 }, waiting.id, third, fourth, fifth);
    await keeps({ ageMsMax: Date.now() - 3.5 * DAY_MS }, waiting.id, fourth, fifth);
    await keeps({ clipsBytesMax: 1 }, waiting.id, fifth);
  });

  test("a disk that is full while a clip or a checkpoint is written is DISK_FULL, leaves nothing, and the store goes on", async () => {
    const store = await openSqliteStore(join(folder, "jobs.db"));
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    const { artefacts } = store;
    await symlink("/dev/full", await artefacts.place(id, `${lease.token}-1.checkpoint.part`));
    expect(await reasonOf(store.saveCheckpoint(lease, [new Uint8Array(9)]))).toBe("DISK_FULL");
    expect(await artefacts.names(id)).toEqual([]);
    await symlink("/dev/full", await artefacts.place(id, `${lease.token}.mp4`));
    const attempt = await artefacts.createAttempt(lease);
    expect(await reasonOf(attempt.write(new Uint8Array(9)))).toBe("DISK_FULL");
    await attempt.discard();
    expect(await store.renew(lease)).toEqual({ cancelRequested: false });
    await store.close();
  });

  test("a checkpoint that a killed writer left half written stays while its lease may live and goes when the job is taken back", async () => {
    const path = join(folder, "jobs.db");
    const store = await openSqliteStore(path);
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    await store.saveCheckpoint(lease, [Buffer.from("whole")]);
    const [whole = ""] = await store.artefacts.names(id);
    const half = `${lease.token}-99.checkpoint.part`;
    await writeFile(await store.artefacts.place(id, half), "half");
    await store.close();
    // Opening tidies: this may be any process beside the writer.
    const next = await openSqliteStore(path);
    expect((await next.artefacts.names(id)).toSorted()).toEqual([whole, half].toSorted());
    expect(await next.takeBack(lease.owner)).toBe(1);
    expect(await next.artefacts.names(id)).toEqual([whole]);
    expect(Buffer.from((await next.loadCheckpoint(id)) ?? []).toString()).toBe("whole");
    await next.close();
  });

  test("processes killed in the middle of work lose no accepted job and finish none twice", async () => {
    const path = join(folder, "jobs.db");
    const store = await openSqliteStore(path);
    const jobs = await Promise.all(Array.from({ length: 12 }, () => store.submit(SPEC)));
    const entry = new URL("./index.ts", import.meta.url).href;
    const script = `
      const { openSqliteStore } = await import(${JSON.stringify(entry)});
      const store = await openSqliteStore(${JSON.stringify(path)});
      const signal = AbortSignal.timeout(50000);
      for (;;) {
        const after = store.changeCount;
        const lease = await store.claimNext({ owner: String(process.pid), leaseMs: 3000 });
        if (lease === null) { await store.waitForChange({ after, signal }); continue; }
        console.log("claimed");
        for (let step = 1; step <= 4; step++) await store.writeProgress(lease, { stage: "denoise", step, stepCount: 4, percent: step * 25 }).catch(() => {});
        await store.finish(lease, { kind: "completed", artefact: ${JSON.stringify(FACTS)} }).catch(() => {});
      }`;
    const start = () =>
      spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: ["ignore", "pipe", "inherit"] });
    const first = start();
    await once(first.stdout, "data");
    first.kill("SIGKILL");
    const rest = [start(), start()];
    const signal = AbortSignal.timeout(50_000);
    for (;;) {
      const after = store.changeCount;
      if ((await store.counts()).completed === jobs.length) break;
      await store.waitForChange({ after, signal });
    }
    for (const child of rest) child.kill("SIGKILL");
    for (const job of jobs) {
      const states = (await store.eventsAfter(job.id, 0)).map((event) => event.state);
      expect(states.filter((state) => state === "completed")).toEqual(["completed"]);
      expect(states.at(-1)).toBe("completed");
    }
    await store.close();
  });
});
