// The scheduler's settings; the only file here that sees the environment.
import { limit } from "@moevie/contracts";
import { readConfig, type Settings, type SettingSpec } from "@moevie/runtime";

const JOBS_RUNNING_CEILING = 64;

const SETTINGS = {
  MOEVIE_BUNDLE: { kind: "path" },
  MOEVIE_DATA: { kind: "path" },
  MOEVIE_TEXT_ENCODER: { kind: "address" },
  MOEVIE_ROUTER: { kind: "address" },
  MOEVIE_DECODER: { kind: "address" },
  MOEVIE_JOBS_RUNNING_MAX: { kind: "int", min: 1, max: JOBS_RUNNING_CEILING, default: limit("jobsRunningMax") },
  MOEVIE_CHECKPOINT_STEPS: { kind: "int", min: 1, max: limit("stepsMax"), default: 5 },
  MOEVIE_PREVIEW_STEPS: { kind: "int", min: 0, max: limit("stepsMax"), default: 4 },
} as const satisfies Readonly<Record<string, SettingSpec>>;

/** Throws CONFIG_INVALID that names the variable. */
export function readSchedulerConfig(env: Readonly<Record<string, string | undefined>>): Settings<typeof SETTINGS> {
  return readConfig(env, SETTINGS);
}
