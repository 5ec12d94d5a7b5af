// The metric table: every name, kind, label and bucket of every service, once. Boards, docs and code follow it.

export interface MetricSpec {
  readonly kind: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly labels: readonly string[];
  readonly buckets?: readonly number[];
}

const RPC_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const JOB_BUCKETS = [1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1200, 1800, 3600];
const WAIT_BUCKETS = [0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600];
const STEP_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10];
const EXCHANGE_BUCKETS = [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2];

export const METRICS = {
  moevie_rpc_requests_total: { kind: "counter", help: "RPCs answered.", labels: ["rpc_service", "method", "code"] },
  moevie_rpc_duration_seconds: {
    kind: "histogram",
    help: "Time to answer an RPC; streams from first to last message.",
    labels: ["rpc_service", "method"],
    buckets: RPC_BUCKETS,
  },
  moevie_rpc_in_flight: { kind: "gauge", help: "RPCs being answered.", labels: ["rpc_service"] },
  moevie_jobs_submitted_total: { kind: "counter", help: "Jobs accepted by the gateway.", labels: [] },
  moevie_jobs_finished_total: {
    kind: "counter",
    help: "Jobs that ended, by outcome and reason, running or queued.",
    labels: ["outcome", "reason"],
  },
  moevie_jobs_lapsed_total: {
    kind: "counter",
    help: "Jobs that failed because their deadline passed, by whether they were queued or running.",
    labels: ["state"],
  },
  moevie_jobs_in_state: { kind: "gauge", help: "Jobs in the store by state.", labels: ["state"] },
  moevie_jobs_dead: {
    kind: "gauge",
    help: "Failed jobs in the store that failed for no fault of their caller: `moevie jobs dead` shows them.",
    labels: [],
  },
  moevie_jobs_refused_total: {
    kind: "counter",
    help: "Jobs the gateway refused for want of room in the queue or of their tenant's part of it.",
    labels: ["reason"],
  },
  moevie_job_duration_seconds: {
    kind: "histogram",
    help: "From lease to end.",
    labels: ["outcome"],
    buckets: JOB_BUCKETS,
  },
  moevie_job_queue_wait_seconds: {
    kind: "histogram",
    help: "From submit to lease.",
    labels: [],
    buckets: WAIT_BUCKETS,
  },
  moevie_job_checkpoints_total: { kind: "counter", help: "Checkpoints written.", labels: [] },
  moevie_job_checkpoint_bytes_total: { kind: "counter", help: "Bytes of checkpoints written.", labels: [] },
  moevie_job_checkpoint_seconds_total: {
    kind: "counter",
    help: "Time that copying and writing checkpoints took, also those that could not be written; steps go on meanwhile.",
    labels: [],
  },
  moevie_job_redeliveries_total: { kind: "counter", help: "Jobs started again after their owner died.", labels: [] },
  moevie_stage_duration_seconds: {
    kind: "histogram",
    help: "Time of a job's stage.",
    labels: ["stage"],
    buckets: JOB_BUCKETS,
  },
  moevie_stage_errors_total: { kind: "counter", help: "Stages that failed, by reason.", labels: ["stage", "reason"] },
  moevie_peer_retries_total: {
    kind: "counter",
    help: "Calls the scheduler repeated because a peer was away.",
    labels: ["peer", "reason"],
  },
  moevie_denoise_step_duration_seconds: {
    kind: "histogram",
    help: "One denoising step, both branches, guidance and sampler.",
    labels: [],
    buckets: STEP_BUCKETS,
  },
  moevie_denoise_steps_total: { kind: "counter", help: "Denoising steps done.", labels: [] },
  moevie_frames_generated_total: { kind: "counter", help: "Frames in finished clips.", labels: [] },
  moevie_video_seconds_generated_total: { kind: "counter", help: "Seconds of finished clips.", labels: [] },
  moevie_router_queue_depth: { kind: "gauge", help: "Denoise calls in flight at the router.", labels: [] },
  moevie_router_trunk_seconds_total: { kind: "counter", help: "Time in trunk graphs.", labels: [] },
  moevie_router_exchange_wait_seconds_total: {
    kind: "counter",
    help: "Time a Denoise call waited for shards.",
    labels: [],
  },
  moevie_router_exchange_hidden_seconds_total: {
    kind: "counter",
    help: "Part of that wait during which the router's trunk computed for another call.",
    labels: [],
  },
  moevie_router_evaluations_total: {
    kind: "counter",
    help: "Evaluations by company: alone, or in one batch with other jobs' or with the job's other branch.",
    labels: ["company"],
  },
  moevie_router_batch_wait_seconds_total: {
    kind: "counter",
    help: "Time evaluations waited for others to share their batch.",
    labels: [],
  },
  moevie_placement_epoch: { kind: "gauge", help: "Newest placement that a connected shard has.", labels: [] },
  moevie_exchange_seconds_total: {
    kind: "counter",
    help: "Time of exchanges by part: credit (waiting for it at the router), wire_up (packing and sending rows until the shard has them all), queue and compute at the shard, wire_down. On one host (a Unix socket or segment) both ends read one clock. By TCP the clocks' offset is taken from the exchange of the last 5 to 10 seconds with the least time on the wire, its two ways counted as equal: up and down are wrong by half of that time at most, their sum is exact. A shard of an older version gives wire, both ways together.",
    labels: ["shard", "part"],
  },
  moevie_exchange_duration_seconds: {
    kind: "histogram",
    help: "One expert exchange as the router sees it.",
    labels: ["shard"],
    buckets: EXCHANGE_BUCKETS,
  },
  moevie_exchange_bytes_total: {
    kind: "counter",
    help: "Bytes of exchange frames at the router, with rows that lie in a segment.",
    labels: ["shard", "direction"],
  },
  moevie_exchange_path: {
    kind: "gauge",
    help: "1 for what rows to a shard go by: tcp, unix (a socket file) or segment (memory of this host).",
    labels: ["shard", "path"],
  },
  moevie_exchange_retries_total: { kind: "counter", help: "Rows sent again to another holder.", labels: ["shard"] },
  moevie_exchange_hedges_total: {
    kind: "counter",
    help: "Rows sent to another holder too because this shard was late: won, the other answered first, or lost.",
    labels: ["shard", "outcome"],
  },
  moevie_donor_loads_total: {
    kind: "counter",
    help: "Times a shard was asked to load experts that no connected shard held: done, or refused.",
    labels: ["outcome"],
  },
  moevie_exchange_late_answers_total: {
    kind: "counter",
    help: "Answers that came after their deadline or for another attempt, and were dropped.",
    labels: ["shard"],
  },
  moevie_expert_tokens_total: {
    kind: "counter",
    help: "Rows computed by experts of a shard, summed over layers.",
    labels: ["shard"],
  },
  moevie_controller_leader: { kind: "gauge", help: "1 where this controller leads.", labels: [] },
  moevie_controller_balancedness_ratio: {
    kind: "gauge",
    help: "Mean over largest load under the loads of late: of the placement, and of the plan made last; over shards, and over the slots that hold a copy.",
    labels: ["of", "over"],
  },
  moevie_controller_refusals_total: {
    kind: "counter",
    help: "Times a shard did not load what a controller told it to hold, for want of memory or of files it can read.",
    labels: ["shard"],
  },
  moevie_controller_bounded_shards: {
    kind: "gauge",
    help: "Shards that are planned with less than the others since they refused experts.",
    labels: [],
  },
  moevie_rebalances_total: {
    kind: "counter",
    help: "Times a controller moved experts: done, or rolled_back.",
    labels: ["outcome"],
  },
  moevie_rebalance_last_seconds: { kind: "gauge", help: "Time the last rebalance took.", labels: [] },
  moevie_rebalance_age_seconds: { kind: "gauge", help: "Time since the last rebalance ended.", labels: [] },
  moevie_expert_epoch: { kind: "gauge", help: "Epoch of the placement a shard has.", labels: ["shard"] },
  moevie_expert_changes_total: {
    kind: "counter",
    help: "Changes of the experts a shard holds of one layer: done, or rolled_back.",
    labels: ["shard", "outcome"],
  },
  moevie_expert_call_duration_seconds: {
    kind: "histogram",
    help: "Compute time of one exchange at the shard.",
    labels: ["shard"],
    buckets: EXCHANGE_BUCKETS,
  },
  moevie_expert_shard_ready: {
    kind: "gauge",
    help: "1 when the router holds a live stream to this shard.",
    labels: ["shard"],
  },
  moevie_expert_imbalance_ratio: {
    kind: "gauge",
    help: "Largest over mean rows per shard, last Denoise call.",
    labels: [],
  },
  moevie_model_load_seconds: { kind: "gauge", help: "Time from process start to the model's first run.", labels: [] },
  moevie_model_loaded: { kind: "gauge", help: "1 once the model ran.", labels: [] },
  moevie_draining: { kind: "gauge", help: "1 while the service drains.", labels: [] },
  moevie_peer_up: { kind: "gauge", help: "1 when the peer's metrics could be read.", labels: ["peer"] },
  moevie_build_info: { kind: "gauge", help: "1, with the build's facts as labels.", labels: ["version", "node"] },
} as const satisfies Record<string, MetricSpec>;

export type MetricName = keyof typeof METRICS;
