// Names a process so that a reused process id is not mistaken for it. Reads /proc; does nothing to processes.
import { readFileSync } from "node:fs";

/** Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat), or "" where /proc is absent. */
function startTicks(pid: number): string {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name in parentheses may hold spaces: count fields after the last ")".
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? "zombie" : (fields[19] ?? "");
  } catch {
    return "";
  }
}

/** "PID TICKS" of a living process. */
export function processIdentity(pid: number): string {
  return `${pid} ${startTicks(pid)}`;
}

/** Is the process that `identity` was taken from still running? An unreadable identity counts as running. */
export function isAlive(identity: string): boolean {
  const [pidText, ticks] = identity.trim().split(" ");
  const pid = Number(pidText);
  if (!Number.isSafeInteger(pid) || pid <= 0) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  const now = startTicks(pid);
  return now === "" || ticks === undefined || ticks === "" || now === ticks;
}
