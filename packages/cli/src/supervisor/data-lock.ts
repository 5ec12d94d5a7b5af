// One user at a time of a data folder: two clusters there would take each other's jobs for those of an earlier life. The lock is SQLite's on a
// file of its own, so the system drops it with the process, however that ends. Knows nothing of what lies beside that file.
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { UsageError } from "../failure.ts";

const LOCK_FILE = "serve.lock";
/** SQLITE_BUSY of SQLite's result codes. */
const BUSY = 5;

/** Claims `folder` until the answer is called. Throws UsageError where another process has it, and where the file cannot be made. */
export function lockData(folder: string): () => void {
  let lock: DatabaseSync | undefined;
  try {
    lock = new DatabaseSync(join(folder, LOCK_FILE), { timeout: 0 });
    lock.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    lock?.close();
    const { errcode } = error as { readonly errcode?: number };
    const allowed =
      errcode === BUSY
        ? "a folder that no other moevie uses: one that runs keeps its jobs there"
        : `a folder where ${LOCK_FILE} can be written (${(error as Error).message})`;
    throw new UsageError([{ flag: "--data", value: folder, allowed }]);
  }
  const held = lock;
  return () => held.close();
}
