// The private folder of one cluster's sockets, logs and temporary data. Made before any child, removed after
// the last; folders whose supervisor died are removed by the next start. Touches only folders it can prove are its own kind.
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CommandError } from "../failure.ts";
import { isAlive, processIdentity } from "./process-identity.ts";

const PREFIX = "moevie-";
/** Holds the identity of the supervisor; a folder without it is nobody's and is left alone. */
const OWNER_FILE = "supervisor.pid";
/** Folders looked at in one clean-up. */
const STALE_FOLDERS_MAX = 1000;

/** Makes the folder, mode 0700, with the owner's identity in it. Throws CommandError where none can be made. */
export function createRunFolder(temporaryDir: string): string {
  let path: string;
  try {
    path = mkdtempSync(join(temporaryDir, PREFIX));
  } catch (error) {
    throw new CommandError(
      `the temporary folder is ${temporaryDir}; allowed: a folder that can be written (${(error as NodeJS.ErrnoException).code ?? "unknown"}); set TMPDIR to one`,
      "SYSTEM",
    );
  }
  writeFileSync(join(path, OWNER_FILE), processIdentity(process.pid), { mode: 0o600 });
  mkdirSync(join(path, "logs"), { mode: 0o700 });
  return path;
}

/** Removes a run folder; a folder that is gone already is fine. */
export function removeRunFolder(path: string): void {
  rmSync(path, { recursive: true, force: true, maxRetries: 3, retryDelay: 50 });
}

function ownerOf(path: string): string | undefined {
  try {
    const facts = lstatSync(path);
    if (!facts.isDirectory() || facts.uid !== process.getuid?.()) return undefined;
    return readFileSync(join(path, OWNER_FILE), "utf8");
  } catch {
    return undefined;
  }
}

/** Removes run folders of this user whose supervisor is dead. Answers their paths. */
export function removeStaleRunFolders(temporaryDir: string): string[] {
  let names: string[];
  try {
    names = readdirSync(temporaryDir).filter((name) => name.startsWith(PREFIX));
  } catch {
    return [];
  }
  const removed: string[] = [];
  for (const name of names.slice(0, STALE_FOLDERS_MAX)) {
    const path = join(temporaryDir, name);
    const owner = ownerOf(path);
    if (owner === undefined || isAlive(owner)) continue;
    removeRunFolder(path);
    removed.push(path);
  }
  return removed;
}
