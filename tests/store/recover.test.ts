// A database whose pages are damaged for real: it is refused by name, checked, and replaced by its newest sound copy, with every job
// accounted for. Through the command line, as an operator does it.
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openSqliteStore, type SqliteJobStore } from "@moevie/job-store";
import { FACTS, SPEC } from "@moevie/job-store/contract-suite";

const MAIN = fileURLToPath(new URL("../../packages/cli/src/main.ts", import.meta.url));
const PAGE_BYTES = 4096;

let data = "";
const stores: SqliteJobStore[] = [];
beforeEach(() => {
  data = mkdtempSync(join(tmpdir(), "moevie-recover-"));
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  rmSync(data, { recursive: true, force: true });
});

async function opened(backupMs = 0, onNotice: (line: string) => void = () => undefined): Promise<SqliteJobStore> {
  const store = await openSqliteStore(join(data, "jobs.db"), { backupMs, onNotice });
  stores.push(store);
  return store;
}

async function closed(store: SqliteJobStore): Promise<void> {
  stores.splice(stores.indexOf(store), 1);
  await store.close();
}

interface Run {
  readonly code: number;
  readonly text: string;
}

function moevie(...args: string[]): Promise<Run> {
  return new Promise((resolve) => {
    execFile(process.execPath, ["--disable-warning=ExperimentalWarning", MAIN, ...args], (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), text: stdout + stderr }),
    );
  });
}

function copies(): readonly string[] {
  const folder = join(data, "backups");
  return existsSync(folder) ? readdirSync(folder).filter((name) => /^jobs-\d+\.db$/.test(name)) : [];
}

async function until(holds: () => boolean): Promise<void> {
  const signal = AbortSignal.timeout(20_000);
  while (!holds()) {
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Overwrites all pages but the first: the header stays that of a database. */
async function damage(): Promise<void> {
  const path = join(data, "jobs.db");
  const file = await open(path, "r+");
  const rest = statSync(path).size - PAGE_BYTES;
  await file.write(Buffer.alloc(rest, 0xff), 0, rest, PAGE_BYTES);
  await file.close();
}

/** One finished job, one that runs, both in a copy; one accepted after it. Then the services stop. */
async function history(): Promise<{ finished: string; running: string; late: string }> {
  const store = await opened(50);
  const finished = (await store.submit(SPEC)).id;
  const lease = await store.claimNext({ owner: "a", leaseMs: 600_000 });
  if (lease === null) throw new Error("no job to claim");
  const attempt = await store.artefacts.createAttempt(lease);
  await attempt.write(Buffer.from("clip"));
  await attempt.commit();
  await store.finish(lease, { kind: "completed", artefact: FACTS });
  const running = (await store.submit(SPEC)).id;
  const held = await store.claimNext({ owner: "a", leaseMs: 600_000 });
  if (held === null) throw new Error("no job to claim");
  const claimedMs = Date.now();
  await store.renew(held);
  await until(() => copies().some((name) => Number(/\d+/.exec(name)?.[0]) >= claimedMs));
  await closed(store);
  const later = await opened();
  await later.saveCheckpoint(held, [Buffer.from("state")]);
  const late = (await later.submit(SPEC)).id;
  const lateLease = await later.claimNext({ owner: "a", leaseMs: 600_000 });
  if (lateLease === null) throw new Error("no job to claim");
  await (await later.artefacts.createAttempt(lateLease)).commit();
  await closed(later);
  return { finished, running, late };
}

test("a damaged database is refused by its name and what is damaged; check says so; recover restores the newest sound copy and names what it costs", async () => {
  const { finished, running, late } = await history();
  await damage();
  await expect(openSqliteStore(join(data, "jobs.db"))).rejects.toMatchObject({ reason: "STORE_CORRUPT" });
  await expect(openSqliteStore(join(data, "jobs.db"))).rejects.toThrow(join(data, "jobs.db"));
  const check = await moevie("store", "check", "--data", data);
  expect(check.code).toBe(1);
  expect(check.text).toMatch(/jobs\.db is damaged[\s\S]*copy of .* is sound, 2 jobs/);
  const asked = await moevie("store", "recover", "--data", data);
  expect(asked.code).toBe(1);
  expect(asked.text).toContain("nothing was changed");
  const done = await moevie("store", "recover", "--data", data, "--yes", "--json");
  expect(done.code, done.text).toBe(0);
  const report = JSON.parse(done.text) as {
    lost: string[];
    runAgain: string[];
    withoutClip: string[];
    setAside: string;
  };
  expect(report).toMatchObject({ lost: [late], runAgain: [running], withoutClip: [] });
  expect(existsSync(join(report.setAside, "jobs.db"))).toBe(true);
  expect(readdirSync(join(report.setAside, "artefacts", late)).length).toBe(1);
  const store = await opened();
  const clip = await store.get(finished);
  expect(clip.state.kind).toBe("completed");
  expect(await store.takeBack("a")).toBe(1);
  const again = await store.claimNext({ owner: "b", leaseMs: 600_000 });
  expect(again?.id).toBe(running);
  // Tokens that were given out after the copy are not given out again.
  expect(again?.token).toBeGreaterThan(1000);
});

test("a damaged copy is passed over; without a sound one nothing is changed", async () => {
  await history();
  await damage();
  const before = readdirSync(data).sort();
  for (const name of copies()) writeFileSync(join(data, "backups", name), "not a database at all".repeat(400));
  const refused = await moevie("store", "recover", "--data", data, "--yes");
  expect(refused.code).toBe(1);
  expect(refused.text).toMatch(/There is no sound copy in .*backups: nothing was changed/);
  expect(readdirSync(data).sort()).toEqual([...before, "serve.lock"].toSorted());
});

test("two copies are kept, a change makes another, and none is half written", async () => {
  const store = await opened(30);
  const seen = new Set<string>();
  while (seen.size < 4) {
    await store.submit(SPEC);
    await new Promise((resolve) => setTimeout(resolve, 20));
    for (const name of copies()) seen.add(name);
    expect(copies().length).toBeLessThanOrEqual(3);
  }
  await closed(store);
  expect(copies().length).toBe(2);
  expect(readdirSync(join(data, "backups")).filter((name) => name.endsWith(".part"))).toEqual([]);
});

test("a copy that cannot be made is told, the store goes on, and the next one is made when it can be", async () => {
  writeFileSync(join(data, "backups"), "in the way");
  const told: string[] = [];
  const store = await opened(30, (line) => told.push(line));
  await store.submit(SPEC);
  await until(() => told.length > 0);
  expect(told[0]).toContain("no copy of the job store was made");
  rmSync(join(data, "backups"));
  await until(() => copies().length > 0);
  expect((await store.counts()).queued).toBe(1);
});

test("a folder whose services run is left alone, and one that is sound is not replaced", async () => {
  const store = await opened();
  await store.submit(SPEC);
  const busy = await moevie("store", "check", "--data", data);
  expect(busy.code).toBe(1);
  expect(busy.text).toContain("stop the services");
  await closed(store);
  const sound = await moevie("store", "recover", "--data", data, "--yes");
  expect(sound.code).toBe(0);
  expect(sound.text).toContain("is sound: nothing was changed");
  await rename(join(data, "jobs.db"), join(data, "elsewhere.db"));
  const gone = await moevie("store", "check", "--data", data);
  expect(gone.code).toBe(1);
  expect(gone.text).toContain(`is not there: ${data} holds no jobs`);
});
