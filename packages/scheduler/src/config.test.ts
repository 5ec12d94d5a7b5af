// What the store keeps, as the environment says it.
import { expect, test } from "vitest";
import { limit } from "@moevie/contracts";
import { readSchedulerConfig, retentionOf } from "./config.ts";

const ENVIRONMENT = {
  MOEVIE_BUNDLE: "/bundle",
  MOEVIE_DATA: "/data",
  MOEVIE_TEXT_ENCODER: "localhost:1",
  MOEVIE_ROUTER: "localhost:2",
  MOEVIE_DECODER: "localhost:3",
};

test("finished jobs are kept as the limits say unless configured, in days and GiB", () => {
  expect(retentionOf(readSchedulerConfig(ENVIRONMENT))).toEqual({
    jobsMax: limit("finishedJobsMax"),
    ageMsMax: limit("finishedDaysMax") * 86_400_000,
    clipsBytesMax: limit("clipsBytesMax"),
  });
  const set = { MOEVIE_FINISHED_JOBS_MAX: "7", MOEVIE_FINISHED_DAYS_MAX: "2", MOEVIE_CLIPS_GIB_MAX: "3" };
  expect(retentionOf(readSchedulerConfig({ ...ENVIRONMENT, ...set }))).toEqual({
    jobsMax: 7,
    ageMsMax: 172_800_000,
    clipsBytesMax: 3 * 2 ** 30,
  });
});

test.each(["0", "-1", "1.5", "many"])("%s is refused with the variable's name", (value) => {
  for (const name of ["MOEVIE_FINISHED_JOBS_MAX", "MOEVIE_FINISHED_DAYS_MAX", "MOEVIE_CLIPS_GIB_MAX"])
    expect(() => readSchedulerConfig({ ...ENVIRONMENT, [name]: value })).toThrow(`${name} is "${value}"`);
});
