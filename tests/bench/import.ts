// What importing the real Wan2.2's 126 GB costs: seconds, memory and bytes written, with sparse files for weights. Nothing is compared, so
// seconds are this machine's.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeSparseWan } from "../support/sparse-wan-folder.ts";
import { ROOT, showTarget } from "./support/processes.ts";

const TARGETS = { seconds: 30, megabytes: 50, gibibytes: 1 } as const;
const LOOK_MS = 20;

/** Bytes of the most memory each process of the session `leader` has had, summed. */
function peakBytes(leader: number): number {
  let sum = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const session = readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /, "")
        .split(" ")[3];
      const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
      if (session === String(leader)) sum += Number(peak ?? 0) * 1024;
    } catch {
      // It has ended since.
    }
  }
  return sum;
}

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-import-"));
try {
  writeSparseWan(join(scratch, "a14b"));
  const startMs = performance.now();
  const child = spawn(
    join(ROOT, "moevie"),
    ["import", join(scratch, "a14b"), "--out", join(scratch, "bundle"), "--precision=bf16"],
    { detached: true, stdio: ["ignore", "inherit", "inherit"] },
  );
  let peak = 0;
  const looks = setInterval(() => (peak = Math.max(peak, peakBytes(child.pid ?? 0))), LOOK_MS);
  const code = await new Promise((resolve) => child.once("close", resolve));
  clearInterval(looks);
  if (code !== 0) throw new Error(`import ended with ${String(code)}`);
  const seconds = (performance.now() - startMs) / 1000;
  const written = readdirSync(join(scratch, "bundle"), { recursive: true })
    .map((name) => statSync(join(scratch, "bundle", String(name))))
    .filter((entry) => entry.isFile())
    .reduce((sum, { size }) => sum + size, 0);
  console.log("");
  showTarget("import", seconds, "s", "at most", TARGETS.seconds);
  showTarget("written", written / 1e6, "MB", "at most", TARGETS.megabytes);
  showTarget("memory of all its processes", peak / 2 ** 30, "GiB", "at most", TARGETS.gibibytes);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
