// The panels of jobs, the first row of the overview board: title, unit, what it says, queries.
import { q, quantile, zeroSafe } from "./grafana-queries.mjs";

export const JOB_PANELS = [
  [
    "Jobs by state",
    "short",
    "Jobs in the store. Queued that only grows means the schedulers cannot keep up.",
    [q("max by (state) (moevie_jobs_in_state)", "{{state}}")],
  ],
  [
    "Dead jobs",
    "short",
    "Jobs that failed for no fault of their caller; zero is good. docs/operations/job-store.md says what to do.",
    [q("max(moevie_jobs_dead)", "dead")],
  ],
  [
    "Jobs that lapsed",
    "ops",
    "Jobs that failed because their deadline passed while they waited or ran.",
    [q("sum by (state) (rate(moevie_jobs_lapsed_total[$__rate_interval]))", "{{state}}")],
  ],
  [
    "Jobs refused",
    "ops",
    "QUEUE_FULL: all waiting jobs together; TENANT_QUEUE_FULL: those of one tenant.",
    [q("sum by (reason) (rate(moevie_jobs_refused_total[$__rate_interval]))", "{{reason}}")],
  ],
  [
    "Jobs finished",
    "ops",
    "Jobs that ended, by outcome.",
    [q("sum by (outcome) (rate(moevie_jobs_finished_total[$__rate_interval]))", "{{outcome}}")],
  ],
  [
    "Failures by reason",
    "ops",
    "Reasons as in docs/ERRORS.md; zero is good.",
    [
      q(
        zeroSafe('sum by (reason) (rate(moevie_jobs_finished_total{outcome="failed"}[$__rate_interval]))'),
        "{{reason}}",
      ),
    ],
  ],
  [
    "Wait in the queue",
    "s",
    "From submit to lease.",
    [
      q(quantile(0.5, "moevie_job_queue_wait_seconds"), "p50"),
      q(quantile(0.95, "moevie_job_queue_wait_seconds"), "p95"),
    ],
  ],
  [
    "Time of a job",
    "s",
    "From lease to end, by outcome.",
    [
      q(quantile(0.5, "moevie_job_duration_seconds", ["outcome"]), "p50 {{outcome}}"),
      q(quantile(0.95, "moevie_job_duration_seconds", ["outcome"]), "p95 {{outcome}}"),
    ],
  ],
  [
    "Video made",
    "s",
    "Seconds of finished clips per second.",
    [q(zeroSafe("sum(rate(moevie_video_seconds_generated_total[$__rate_interval]))"), "seconds per second")],
  ],
  [
    "Started again",
    "ops",
    "Jobs that another scheduler took over after a lease died.",
    [q(zeroSafe("sum(rate(moevie_job_redeliveries_total[$__rate_interval]))"), "started again")],
  ],
  [
    "Checkpoints",
    "ops",
    "Checkpoints written between steps.",
    [q(zeroSafe("sum(rate(moevie_job_checkpoints_total[$__rate_interval]))"), "checkpoints")],
  ],
  [
    "What checkpoints cost",
    "percentunit",
    "Time spent on checkpoints as a share of the steps' time; MOEVIE_CHECKPOINT_SHARE is what they may take.",
    [
      q(
        "sum(rate(moevie_job_checkpoint_seconds_total[$__rate_interval])) / sum(rate(moevie_denoise_step_duration_seconds_sum[$__rate_interval]))",
        "share",
      ),
    ],
  ],
  [
    "Errors by stage",
    "ops",
    "Stages that failed and why; a retry may have followed.",
    [q(zeroSafe("sum by (stage, reason) (rate(moevie_stage_errors_total[$__rate_interval]))"), "{{stage}} {{reason}}")],
  ],
];
