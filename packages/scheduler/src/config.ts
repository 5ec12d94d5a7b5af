// The scheduler's settings; the only file here that sees the environment.
import { limit } from "@moevie/contracts";
import { STORE_SETTINGS, type Retention } from "@moevie/job-store";
import { readConfig, type Settings, type SettingSpec } from "@moevie/runtime";

const JOBS_RUNNING_CEILING = 64;
const FINISHED_JOBS_CEILING = 1_000_000;
const FINISHED_DAYS_CEILING = 36_500;
const CLIPS_GIB_CEILING = 1_000_000;
const BACKUP_MINUTES_CEILING = 10_080;
const CHECKPOINT_SHARE_FLOOR = 0.0001;
const CHECKPOINT_SHARE = 0.01;
const DAY_MS = 86_400_000;
const GIB = 2 ** 30;

const SETTINGS = {
  MOEVIE_BUNDLE: { kind: "path" },
  ...STORE_SETTINGS,
  MOEVIE_TEXT_ENCODER: { kind: "address" },
  MOEVIE_ROUTER: { kind: "address" },
  MOEVIE_DECODER: { kind: "address" },
  MOEVIE_SCHEDULER_NAME: { kind: "string", default: "" },
  MOEVIE_JOBS_RUNNING_MAX: { kind: "int", min: 1, max: JOBS_RUNNING_CEILING, default: limit("jobsRunningMax") },
  MOEVIE_CHECKPOINT_STEPS: { kind: "int", min: 1, max: limit("stepsMax"), default: 1 },
  MOEVIE_CHECKPOINT_SHARE: { kind: "float", min: CHECKPOINT_SHARE_FLOOR, max: 1, default: CHECKPOINT_SHARE },
  MOEVIE_REFERENCE_DIR: { kind: "path", default: "" },
  MOEVIE_PREVIEW_STEPS: { kind: "int", min: 0, max: limit("stepsMax"), default: 4 },
  MOEVIE_FINISHED_JOBS_MAX: { kind: "int", min: 1, max: FINISHED_JOBS_CEILING, default: limit("finishedJobsMax") },
  MOEVIE_FINISHED_DAYS_MAX: { kind: "int", min: 1, max: FINISHED_DAYS_CEILING, default: limit("finishedDaysMax") },
  MOEVIE_BACKUP_MINUTES: { kind: "int", min: 0, max: BACKUP_MINUTES_CEILING, default: limit("storeBackupMinutes") },
  MOEVIE_CLIPS_GIB_MAX: { kind: "int", min: 1, max: CLIPS_GIB_CEILING, default: limit("clipsBytesMax") / GIB },
} as const satisfies Readonly<Record<string, SettingSpec>>;

type SchedulerConfig = Settings<typeof SETTINGS>;

/** What the store keeps of finished jobs. */
export function retentionOf(config: SchedulerConfig): Retention {
  return {
    jobsMax: config.MOEVIE_FINISHED_JOBS_MAX,
    ageMsMax: config.MOEVIE_FINISHED_DAYS_MAX * DAY_MS,
    clipsBytesMax: config.MOEVIE_CLIPS_GIB_MAX * GIB,
  };
}

/** Throws CONFIG_INVALID that names the variable. */
export function readSchedulerConfig(env: Readonly<Record<string, string | undefined>>): SchedulerConfig {
  return readConfig(env, SETTINGS);
}
