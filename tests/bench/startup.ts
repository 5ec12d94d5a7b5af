// Start-up and idle cost of the whole cluster: seconds from spawn to ready with all processes started at once, memory
// (proportional share) and CPU of each while nothing is asked of it.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { importStarter } from "@moevie/importer";
import { startCluster } from "./support/cluster.ts";
import { ProcessGroup, ROOT, cpuSeconds, median, residentMiB, showTarget } from "./support/processes.ts";

const ROUNDS = 3;
const IDLE_SECONDS = 5;
/** On two cores: what a person waits for, and what a cluster that does nothing may cost. */
const TARGETS = { allReadySeconds: 5, idleCoreShare: 0.1 };

const scratch = mkdtempSync(join(tmpdir(), "moevie-bench-startup-"));
try {
  const bundle = join(scratch, "bundle");
  await importStarter(join(ROOT, "packages/starter-model/weights"), bundle);
  const readySeconds = new Map<string, number[]>();
  const all: number[] = [];
  let idle: { name: string; mebibytes: number; startCpuSeconds: number; idleCpuShare: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const group = new ProcessGroup();
    try {
      const started = await startCluster(group, { bundle, data: join(scratch, `data-${round}`) });
      all.push(Math.max(...started.map((process) => process.readySeconds)));
      for (const { name, readySeconds: seconds } of started)
        readySeconds.set(name, [...(readySeconds.get(name) ?? []), seconds]);
      const before = started.map(({ pid }) => cpuSeconds(pid));
      await sleep(IDLE_SECONDS * 1000);
      idle = started.map(({ name, pid }, at) => ({
        name,
        mebibytes: residentMiB(pid),
        startCpuSeconds: before[at] ?? 0,
        idleCpuShare: (cpuSeconds(pid) - (before[at] ?? 0)) / IDLE_SECONDS,
      }));
    } finally {
      await group.close();
    }
  }
  console.log(`\nstart-up of the cluster, all processes at once, median of ${ROUNDS}; idle over ${IDLE_SECONDS} s`);
  for (const { name, mebibytes, startCpuSeconds, idleCpuShare } of idle)
    console.log(
      `  ${name.padEnd(16)} ready after ${median(readySeconds.get(name) ?? []).toFixed(2)} s, CPU ${startCpuSeconds.toFixed(2)} s; idle ${mebibytes.toFixed(0)} MiB, ${(idleCpuShare * 100).toFixed(1)} % of a core`,
    );
  const sum = idle.reduce((total, { mebibytes }) => total + mebibytes, 0);
  console.log(`  all ready after ${median(all).toFixed(2)} s; idle memory ${sum.toFixed(0)} MiB`);
  const idleCoreShare = idle.reduce((total, process) => total + process.idleCpuShare, 0);
  showTarget("all ready", median(all), "s", "at most", TARGETS.allReadySeconds);
  showTarget("idle CPU of all", idleCoreShare * 100, "% of a core", "at most", TARGETS.idleCoreShare * 100);
  const met = median(all) <= TARGETS.allReadySeconds && idleCoreShare <= TARGETS.idleCoreShare;
  console.log(
    JSON.stringify({
      allReadySeconds: median(all),
      idleMebibytes: sum,
      idleCoreShare,
      processes: idle,
      targets: TARGETS,
      met,
    }),
  );
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
