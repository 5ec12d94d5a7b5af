// Looks over a data folder whose services are stopped, and puts the newest sound copy in the place of a damaged database. Nothing is thrown
// away: what was there is set aside in a folder of its own.
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { MoevieError } from "@moevie/contracts";
import { backupsOf, syncFile, type Backup } from "./sqlite-backup.ts";

/** Lines of damage that are shown. */
const DAMAGE_LINES_MAX = 20;
/** Beyond any number of leases a job can have had since the copy: a late scheduler's token is never given again. */
const TOKENS_SKIPPED = 1_000_000;
const ID = /^[0-9a-f-]{36}$/;

export interface StoreCheck {
  readonly database: string;
  readonly isThere: boolean;
  /** What is damaged; empty: nothing. */
  readonly damage: readonly string[];
  readonly jobs: number;
  readonly backups: readonly (Backup & { readonly isSound: boolean; readonly jobs: number })[];
}

export interface Recovery {
  readonly restored: string;
  readonly takenAtMs: number;
  /** What was written in it, up to the last sign of life in the folder, is gone. */
  readonly lostMs: number;
  /** Folder with what was there. */
  readonly setAside: string;
  /** Jobs accepted after the copy: their files are set aside, too. */
  readonly lost: readonly string[];
  /** Jobs that the copy holds unfinished and that went on after it: they run again and give the same clip. */
  readonly runAgain: readonly string[];
  /** Jobs whose record is whole and whose clip is gone. */
  readonly withoutClip: readonly string[];
}

/** Reads all of the database and of its copies. Throws PEER_UNAVAILABLE when a service has it open. */
export function checkStore(data: string): StoreCheck {
  const database = join(data, "jobs.db");
  const isThere = existsSync(database);
  const damage = isThere ? damageOf(database) : [];
  const backups = backupsOf(database).map((copy) => {
    const isSound = damageOf(copy.path).length === 0;
    return { ...copy, isSound, jobs: isSound ? idsOf(copy.path).length : 0 };
  });
  return { database, isThere, damage, jobs: isThere && damage.length === 0 ? idsOf(database).length : 0, backups };
}

/** Throws STORE_CORRUPT when there is no sound copy, PEER_UNAVAILABLE when a service has the database open. */
export function recoverStore(data: string, nowMs: number): Recovery {
  const { database, backups } = checkStore(data);
  const copy = backups.find(({ isSound }) => isSound);
  if (copy === undefined)
    throw new MoevieError("STORE_CORRUPT", `There is no sound copy in ${join(data, "backups")}: nothing was changed.`);
  const known = idsOf(database);
  const lastSignMs = Math.max(copy.takenAtMs, ...[database, `${database}-wal`].map(changedAtMs));
  const setAside = join(data, `damaged-${nowMs}`);
  mkdirSync(join(setAside, "artefacts"), { recursive: true, mode: 0o700 });
  const unfinished = `${database}.part`;
  copyFileSync(copy.path, unfinished);
  const report = compare(unfinished, data, copy.takenAtMs, known);
  syncFile(unfinished);
  for (const name of ["jobs.db", "jobs.db-wal", "jobs.db-shm"])
    if (existsSync(join(data, name))) renameSync(join(data, name), join(setAside, name));
  for (const id of report.lost) {
    const files = join(data, "artefacts", id);
    if (existsSync(files)) renameSync(files, join(setAside, "artefacts", id));
  }
  renameSync(unfinished, database);
  syncFile(data);
  const lostMs = lastSignMs - copy.takenAtMs;
  return { restored: copy.path, takenAtMs: copy.takenAtMs, lostMs, setAside, ...report };
}

function compare(
  path: string,
  data: string,
  takenAtMs: number,
  known: readonly string[],
): Pick<Recovery, "lost" | "runAgain" | "withoutClip"> {
  const db = new DatabaseSync(path);
  try {
    db.exec(`PRAGMA journal_mode = DELETE; UPDATE jobs SET token = token + ${TOKENS_SKIPPED}`);
    const rows = db.prepare("SELECT id, state, state_json ->> '$.token' AS token FROM jobs").all();
    const held = new Map(rows.map((row) => [String(row["id"]), row]));
    const artefacts = join(data, "artefacts");
    const onDisk = existsSync(artefacts) ? readdirSync(artefacts).filter((name) => ID.test(name)) : [];
    const lost = [...new Set([...onDisk, ...known])].filter((id) => !held.has(id)).sort();
    const unfinished = rows.filter(({ state }) => state === "queued" || state === "running");
    const runAgain = unfinished
      .map((row) => String(row["id"]))
      .filter((id) => newestMs(join(artefacts, id)) > takenAtMs || known.length === 0);
    const withoutClip = rows
      .filter(
        ({ state, id, token }) =>
          state === "completed" && !existsSync(join(artefacts, String(id), `${String(token)}.mp4`)),
      )
      .map((row) => String(row["id"]));
    return { lost, runAgain, withoutClip };
  } finally {
    db.close();
  }
}

/** Lines that say which page, table or index is damaged; none: it is sound. */
function damageOf(path: string): readonly string[] {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path, { timeout: 0 });
    db.exec("PRAGMA locking_mode = EXCLUSIVE");
    db.exec("BEGIN EXCLUSIVE; ROLLBACK");
    const rows = db.prepare(`PRAGMA integrity_check(${DAMAGE_LINES_MAX})`).all();
    const lines = rows.map((row) => String(row["integrity_check"])).filter((line) => line !== "ok");
    if (lines.length === 0) db.prepare("SELECT count(*) FROM jobs").get();
    return lines.flatMap((line) => line.split("\n"));
  } catch (thrown) {
    const { message, errcode } = thrown as Error & { readonly errcode?: number };
    if (errcode === BUSY)
      throw new MoevieError("PEER_UNAVAILABLE", `${path} is in use: stop the services that have it open first.`);
    return [message];
  } finally {
    db?.close();
  }
}

const BUSY = 5;

/** Ids of all jobs that can be read, even out of a damaged file. */
function idsOf(path: string): readonly string[] {
  const ids: string[] = [];
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(path, { readOnly: true });
    for (const row of db.prepare("SELECT id FROM jobs").iterate()) ids.push(String(row["id"]));
  } catch {
    // What was read until here is what can be known.
  } finally {
    db?.close();
  }
  return ids.filter((id) => ID.test(id));
}

function changedAtMs(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function newestMs(folder: string): number {
  if (!existsSync(folder)) return 0;
  return Math.max(0, ...readdirSync(folder).map((name) => changedAtMs(join(folder, name))));
}
