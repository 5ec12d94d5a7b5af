// Copies of the job store's file, made while it is in use: each appears whole under its name or not at all, and the newest few are kept.
import {
  existsSync,
  fsyncSync,
  openSync,
  closeSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync, backup } from "node:sqlite";
import { limit } from "@moevie/contracts";
import { diskError } from "./artefacts.ts";

const NAME = /^jobs-(\d+)\.db$/;

export interface Backup {
  readonly path: string;
  /** Milliseconds since 1970, by the clock of the machine that made it. */
  readonly takenAtMs: number;
}

function backupsFolder(databasePath: string): string {
  return join(dirname(databasePath), "backups");
}

/** Copies of the database at `databasePath`, newest first. */
export function backupsOf(databasePath: string): readonly Backup[] {
  const folder = backupsFolder(databasePath);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .flatMap((name) => {
      const takenAtMs = NAME.exec(name)?.[1];
      return takenAtMs === undefined ? [] : [{ path: join(folder, name), takenAtMs: Number(takenAtMs) }];
    })
    .sort((one, other) => other.takenAtMs - one.takenAtMs);
}

/** Makes one more copy and removes those beyond storeBackupsMax. Throws DISK_FULL; then the earlier ones are as they were. */
export async function takeBackup(db: DatabaseSync, databasePath: string, nowMs: number): Promise<void> {
  const folder = backupsFolder(databasePath);
  // A clock that was set back must not make the newest copy look old.
  const takenAtMs = Math.max(nowMs, (backupsOf(databasePath)[0]?.takenAtMs ?? 0) + 1);
  const path = join(folder, `jobs-${takenAtMs}.db`);
  const unfinished = `${path}.part`;
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of readdirSync(folder)) if (name.endsWith(".part")) rmSync(join(folder, name), { force: true });
    await backup(db, unfinished);
    syncFile(unfinished);
    renameSync(unfinished, path);
    syncFile(folder);
  } catch (thrown) {
    rmSync(unfinished, { force: true });
    throw diskError(thrown);
  }
  for (const old of backupsOf(databasePath).slice(limit("storeBackupsMax"))) rmSync(old.path, { force: true });
}

export function syncFile(path: string): void {
  const file = openSync(path, statSync(path).isDirectory() ? "r" : "r+");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
