// Plays many schedules: the seeds are shared out over two lanes, a process each, and their reports put together.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { StoreKind } from "./ground.ts";
import type { SchedulesReport } from "./run-schedules.ts";

const LANE = fileURLToPath(new URL("./lane.ts", import.meta.url));
/** Ends a lane when this process is gone. */
const PARENT_WATCH = new URL("../../packages/runtime/src/parent-watch-main.ts", import.meta.url).href;
const LANES_MAX = 2;
/** Fewer are played sooner than a process has started. */
const LANE_SCHEDULES_MIN = 20;

export interface PlayOptions {
  readonly store: StoreKind;
  readonly schedules: number;
  /** Of the first; the next has the next. */
  readonly seed: number;
  /** Name of a planted fault, or "". */
  readonly fault?: string;
  readonly onLine?: (line: string) => void;
}

interface Lane {
  readonly report: Promise<SchedulesReport>;
  readonly stop: () => void;
}

/** Stops soon after the first schedule that breaks a promise. */
export async function play({
  store,
  schedules,
  seed,
  fault = "",
  onLine = () => undefined,
}: PlayOptions): Promise<SchedulesReport> {
  const startMs = performance.now();
  const count = Math.max(1, Math.min(LANES_MAX, Math.floor(schedules / LANE_SCHEDULES_MIN)));
  const lanes: Lane[] = [];
  for (let lane = 0, first = seed; lane < count; lane++) {
    const own = Math.ceil((seed + schedules - first) / (count - lane));
    lanes.push(startLane(store, own, first, fault, onLine));
    first += own;
  }
  for (const lane of lanes)
    void lane.report.then(
      ({ broken }) => broken !== undefined && lanes.forEach(({ stop }) => stop()),
      () => lanes.forEach(({ stop }) => stop()),
    );
  const reports = await Promise.all(lanes.map(({ report }) => report));
  const broken = reports.find((report) => report.broken !== undefined);
  const total = (of: "schedules" | "jobs" | "troubles" | "virtualSeconds"): number =>
    reports.reduce((sum, report) => sum + report[of], 0);
  return {
    schedules: total("schedules"),
    jobs: total("jobs"),
    troubles: total("troubles"),
    virtualSeconds: total("virtualSeconds"),
    perSecond: total("schedules") / ((performance.now() - startMs) / 1000),
    ...(broken?.broken === undefined ? {} : { broken: broken.broken, violations: broken.violations ?? [] }),
  };
}

/** Its report; one that is stopped before has played nothing. Throws when it ends without one by itself. */
function startLane(
  store: StoreKind,
  schedules: number,
  seed: number,
  fault: string,
  onLine: (line: string) => void,
): Lane {
  const options = ["--disable-warning=ExperimentalWarning", `--import=${PARENT_WATCH}`];
  const child = spawn(process.execPath, [...options, LANE, store, `${schedules}`, `${seed}`, fault], {
    stdio: ["ignore", "pipe", "inherit", "pipe"],
    env: { ...process.env, MOEVIE_RUN_DIR: "" },
  });
  let report: SchedulesReport | undefined;
  let isStopped = false;
  const hear = (text: string): void => {
    const told = JSON.parse(text) as { readonly line: string } | { readonly report: SchedulesReport };
    if ("report" in told) report = told.report;
    else onLine(told.line);
  };
  if (child.stdout !== null) createInterface({ input: child.stdout }).on("line", hear);
  const nothing = { schedules: 0, jobs: 0, troubles: 0, virtualSeconds: 0, perSecond: 0 };
  return {
    report: new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code) => {
        if (report !== undefined) resolve(report);
        else if (isStopped) resolve(nothing);
        else reject(new Error(`schedules from seed ${seed} on ended with ${code} and no report`));
      });
    }),
    stop: () => {
      isStopped = true;
      child.kill();
    },
  };
}
