// Makes folders for data. By itself: Node's recursive mkdir never comes back below /proc.
import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";

/** Makes `path`, mode 0700, and whatever it lies in that is not there yet. Throws what the operating system refuses. */
export function makeFolder(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return;
  const parent = dirname(path);
  if (parent !== path) makeFolder(parent);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    // Another process may have been quicker.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST" || !statSync(path).isDirectory()) throw error;
  }
}
