// Every named maximum of the system in one place, unit last, with the relations between them asserted at load.
// docs/LIMITS.md is generated from this table; a bound that is not here is a bug.

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** [value, what it bounds]. */
export const LIMITS = {
  promptCharactersMax: { value: 2000, what: "Characters of a prompt or negative prompt." },
  sidePixelsMin: { value: 32, what: "Shortest side of a clip." },
  sidePixelsMax: { value: 1920, what: "Longest side of a clip." },
  sidePixelsMultiple: { value: 8, what: "Both sides of a clip are multiples of this." },
  clipSecondsMax: { value: 30, what: "Length of a clip." },
  fpsMax: { value: 60, what: "Frames per second of a clip." },
  stepsMax: { value: 100, what: "Denoising steps of a job." },
  guidanceMax: { value: 20, what: "Guidance scale." },
  listPageSizeMax: { value: 100, what: "Videos in one page of a list." },
  listPageSizeDefault: { value: 20, what: "Videos in a page when none is asked for." },
  jobsQueuedMax: { value: 1000, what: "Jobs waiting in the store; beyond it CreateVideo answers QUEUE_FULL." },
  jobsRunningMax: { value: 2, what: "Jobs one scheduler runs side by side unless configured." },
  deadlineSecondsMax: { value: 2_592_000, what: "Deadline of a job, from its submit." },
  deadlineToleranceMs: {
    value: 2_000,
    what: "Time a waiting job is seen past its deadline before it fails: a clock that was set back within it does no harm.",
  },
  jobAttemptsMax: { value: 4, what: "Times a job is started before it fails for good." },
  eventsPerReadMax: { value: 256, what: "Events a watcher reads from the store at once." },
  grpcMessageBytesMax: { value: 4 * MIB, what: "One protobuf message on any gRPC call." },
  tensorChunkBytesMax: { value: 1 * MIB, what: "One chunk of a tensor or a file in a stream." },
  frameBytesMax: { value: 64 * MIB, what: "One frame of the expert exchange." },
  contextCacheBytesMax: { value: 64 * MIB, what: "Text contexts a router or text-encoder keeps." },
  textsPerEncodeMax: { value: 16, what: "Texts in one Encode call." },
  latentBytesMax: { value: 256 * MIB, what: "One latent of a Denoise or Decode call." },
  sliceValuesMax: {
    value: 256 * KIB,
    what: "Values of a latent that the scheduler works on before whatever else waits has its turn.",
  },
  shardCreditBytes: { value: 128 * MIB, what: "Bytes of rows a shard accepts in flight over all its streams." },
  callsInFlightMax: { value: 16, what: "Evaluations of the denoiser a router works on at once." },
  batchEvaluationsMax: { value: 8, what: "Evaluations of several jobs that a router runs as one batch." },
  windowsInFlightMax: { value: 4, what: "Temporal windows of one job that are evaluated side by side." },
  decodesInFlightMax: { value: 2, what: "Clips a decoder works on at once." },
  connectRetryMsMax: { value: 2000, what: "Longest pause between two attempts to reach a peer." },
  peerLookMs: { value: 2_000, what: "Pause between two looks for shards that joined." },
  shardAwayMsMax: {
    value: 600_000,
    what: "Time a shard of a numbered row is away, and not there any more, before routers and controllers forget it.",
  },
  retryPauseMsMin: { value: 50, what: "Pause before a failed call to a peer is repeated the first time." },
  peerWaitMsMax: { value: 120_000, what: "Time a job waits for a peer that is away before it fails." },
  encodeCallMsMax: { value: 60_000, what: "One call to the text-encoder." },
  denoiseCallMsMax: { value: 600_000, what: "One evaluation of the denoiser." },
  denoiseStreamMsMax: { value: 86_400_000, what: "One Denoise stream, which serves a branch of a job." },
  decodeCallMsMax: { value: 1_800_000, what: "One Decode call." },
  readyWaitMsMax: { value: 120_000, what: "Time a service may take from start to ready." },
  drainMsMax: { value: 20_000, what: "Time a service may take from SIGTERM to exit." },
  leaseMs: { value: 10_000, what: "A job's lease: unchanged for this long on the observer's clock means dead." },
  leaseRenewMs: { value: 2_000, what: "Pause between two renewals of a lease." },
  watchesOpenMax: { value: 1000, what: "WatchVideo calls open at one gateway; beyond it TOO_MANY_OPEN_CALLS." },
  waitsOpenMax: { value: 1000, what: "WaitOperation calls open at one gateway; beyond it TOO_MANY_OPEN_CALLS." },
  downloadsOpenMax: {
    value: 256,
    what: "Clips one gateway sends at once, gRPC and HTTP together; beyond it TOO_MANY_OPEN_CALLS.",
  },
  openCallsRetryAfterMs: { value: 5_000, what: "What TOO_MANY_OPEN_CALLS tells the caller to wait." },
  connectionAgeMsMax: {
    value: 300_000,
    what: "Age at which a gRPC connection is replaced, its calls carried on: how callers find replicas that came later.",
  },
  silenceMsMax: { value: 30_000, what: "Silence after which a gRPC connection or a watch counts as dead." },
  exchangeSilenceMsMax: { value: 6_000, what: "Silence after which the peer of an exchange counts as dead." },
  watchHeartbeatMs: { value: 10_000, what: "Silence on a watch stream before a heartbeat." },
  metricSeriesMax: {
    value: 65_536,
    what: "Time series one process exposes; a router has some 17 for each of its shards.",
  },
  checkpointBytesMax: { value: 1025 * MIB, what: "One checkpoint, a file beside the job store." },
  natsCheckpointMib: {
    value: 64,
    what: "Size from which checkpoints go to MOEVIE_CHECKPOINTS in place of NATS unless configured, in MiB.",
  },
  s3CallMsMax: { value: 120_000, what: "One call to the S3 server, a whole checkpoint's upload included." },
  s3RangeBytesMax: { value: 16 * MIB, what: "Part of a checkpoint that one call reads from the S3 server." },
  queueRetryAfterMs: { value: 5_000, what: "What QUEUE_FULL tells the caller to wait." },
  storeBytesMax: { value: 4096 * MIB, what: "The job store's file." },
  storeCallsInFlightMax: { value: 1024, what: "Calls one process has waiting at its job store." },
  storeBusyMsMax: { value: 5_000, what: "Wait for another process to finish its write to the job store." },
  natsCallMsMax: { value: 3_000, what: "One call to the NATS server." },
  natsFirstConnectMsMax: { value: 60_000, what: "Time a service waits for a NATS server when it starts." },
  natsHeartbeatMs: { value: 2_000, what: "Silence of a watch on the NATS server before its heartbeat." },
  natsWakeMsMax: { value: 5_000, what: "Time a claimant holds a wake-up before another gets it." },
  natsChunkBytesMax: { value: 512 * KIB, what: "One message of a file in the NATS object store." },
  natsSweepMs: { value: 1_800_000, what: "Pause between two comparisons of records, streams and files in NATS." },
  kubernetesCallMsMax: { value: 3_000, what: "One call to the Kubernetes API." },
  keptPlacementBytesMax: { value: 1_000_000, what: "The placement that controllers keep in a ConfigMap." },
  checkpointGenerationsMax: {
    value: 2,
    what: "Checkpoints kept of a job: the older is used when the newer is damaged.",
  },
  operationWaitMsMax: { value: 3_600_000, what: "One WaitOperation call; the answer then says the work goes on." },
  metricsPeerMsMax: { value: 2_000, what: "Time a service has to show its metrics to the gateway." },
  metricsPeerBytesMax: { value: 4 * MIB, what: "Metrics of one service shown by the gateway." },
  finishedJobsMax: { value: 4000, what: "Finished jobs kept unless configured; the one that ended first goes first." },
  storeBackupsMax: { value: 2, what: "Copies kept of the SQLite job store." },
  storeBackupMinutes: { value: 5, what: "Minutes between two copies of the SQLite job store unless configured." },
  finishedDaysMax: { value: 30, what: "Days a finished job is kept unless configured." },
  clipsBytesMax: {
    value: 64 * GIB,
    what: "Clips of finished jobs kept unless configured; the job that ended first goes first, the last one never.",
  },
  finishedPerLookMax: { value: 100, what: "Finished jobs removed in one write to the job store." },
  eventsPerJobMax: { value: 2000, what: "Events of a job kept in the store; older ones go first." },
  previewBytesMax: { value: 256 * KIB, what: "One preview picture." },
} as const;

export type LimitName = keyof typeof LIMITS;

/** The value of a named limit. */
export function limit(name: LimitName): number {
  return LIMITS[name].value;
}

/** Relations that must hold between limits; checked when the module loads. */
function assertRelations(): void {
  const relations: readonly [boolean, string][] = [
    [
      2 * limit("windowsInFlightMax") * limit("jobsRunningMax") <= limit("callsInFlightMax"),
      "the windows of a scheduler's jobs, both branches, fit a router",
    ],
    [
      limit("leaseRenewMs") * 3 <= limit("leaseMs"),
      "leaseRenewMs * 3 <= leaseMs: two renewals may be late before a lease dies",
    ],
    [
      limit("tensorChunkBytesMax") < limit("grpcMessageBytesMax"),
      "tensorChunkBytesMax < grpcMessageBytesMax: a chunk fits a message",
    ],
    [
      limit("frameBytesMax") <= limit("shardCreditBytes"),
      "frameBytesMax <= shardCreditBytes: one frame must fit the budget",
    ],
    [
      limit("denoiseCallMsMax") <= limit("denoiseStreamMsMax"),
      "denoiseCallMsMax <= denoiseStreamMsMax: a stream lasts for one evaluation at least",
    ],
    [
      limit("watchHeartbeatMs") * 3 <= limit("silenceMsMax"),
      "watchHeartbeatMs * 3 <= silenceMsMax: two heartbeats may be late before a watch counts as dead",
    ],
    [
      limit("latentBytesMax") * 4 < limit("checkpointBytesMax"),
      "latentBytesMax * 4 < checkpointBytesMax: the latent, a sampler's two estimates and last latent, and a header",
    ],
    [
      limit("finishedJobsMax") * limit("previewBytesMax") * 2 <= limit("storeBytesMax"),
      "finishedJobsMax * previewBytesMax * 2 <= storeBytesMax: previews of all finished jobs fill half the store at most",
    ],
    [
      limit("leaseRenewMs") + 2 * limit("natsCallMsMax") < limit("leaseMs"),
      "leaseRenewMs + 2 * natsCallMsMax < leaseMs: a lease outlives one call that a restarted server never answers",
    ],
    [
      limit("leaseRenewMs") + 2 * limit("kubernetesCallMsMax") < limit("leaseMs"),
      "leaseRenewMs + 2 * kubernetesCallMsMax < leaseMs: a controller's lease outlives one call that is never answered",
    ],
    [
      limit("decodeCallMsMax") <= limit("natsSweepMs"),
      "decodeCallMsMax <= natsSweepMs: parts of a file that did not grow between two sweeps have no writer any more",
    ],
    [limit("listPageSizeDefault") <= limit("listPageSizeMax"), "listPageSizeDefault <= listPageSizeMax"],
  ];
  for (const [holds, text] of relations) if (!holds) throw new Error(`limits contradict each other: ${text}`);
}
assertRelations();
