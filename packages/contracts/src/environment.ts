// Every environment variable a service reads, once. Charts, the supervisor and docs are compared with it.

export const ENVIRONMENT = {
  MOEVIE_SERVICE: "Name of the service in logs, metrics and traces.",
  MOEVIE_RUN_DIR: "Folder of sockets and temporary files, removed when a supervised service exits.",
  MOEVIE_SUPERVISED: "1 when file descriptor 3 is the supervisor's pipe: the service ends when it closes.",
  MOEVIE_GRPC_LISTEN: "Address of the gRPC server: HOST:PORT or unix:PATH.",
  MOEVIE_HTTP_LISTEN: "Address of the HTTP server for health and metrics: HOST:PORT or unix:PATH.",
  MOEVIE_BUNDLE: "Folder of the bundle to serve.",
  MOEVIE_DATA: "Folder of the job store and the clips; not needed with MOEVIE_NATS.",
  MOEVIE_NATS:
    "Servers of the NATS job store, nats://HOST:PORT or tls://HOST:PORT, comma separated; unset: a file in MOEVIE_DATA.",
  MOEVIE_NATS_PREFIX: "What the names of this cluster's streams and buckets begin with.",
  MOEVIE_NATS_REPLICAS: "NATS servers that keep each record, event and file: 1, 3 or 5.",
  MOEVIE_NATS_USER: "User at the NATS server.",
  MOEVIE_NATS_PASSWORD: "That user's password.",
  MOEVIE_NATS_TOKEN: "Token for the NATS server, in place of user and password.",
  MOEVIE_NATS_CREDENTIALS_FILE: "Credentials file for the NATS server, in place of user and password.",
  MOEVIE_NATS_TLS_CA_FILE:
    "PEM file of the authorities that may sign the NATS server's certificate; unset: the system's.",
  MOEVIE_NATS_TLS_CERTIFICATE_FILE: "PEM file of the certificate shown to the NATS server.",
  MOEVIE_NATS_TLS_KEY_FILE: "PEM file of that certificate's key.",
  MOEVIE_CHECKPOINTS:
    "Where large checkpoints go in place of NATS: file:///FOLDER that all schedulers share, or s3://BUCKET/PREFIX; unset: into NATS.",
  MOEVIE_CHECKPOINTS_MIB_MIN: "Size from which a checkpoint counts as large, in MiB; 0: each does.",
  MOEVIE_S3_ENDPOINT: "URL of the S3 server, without the bucket; needed for an s3: place.",
  MOEVIE_S3_REGION: "Its region.",
  MOEVIE_S3_ACCESS_KEY: "Access key at the S3 server.",
  MOEVIE_S3_SECRET_KEY: "That key's secret.",
  MOEVIE_TENANT_WEIGHTS: "tenant=weight of the shares of tenants, comma separated; one that is not named has 1.",
  MOEVIE_TENANT_QUEUED_MAX: "Jobs of one tenant that may wait; 0, the default: no bound but the queue's.",
  MOEVIE_TENANT_RUNNING_MAX: "Jobs of one tenant that may run at once, over all schedulers; 0, the default: no bound.",
  MOEVIE_DEVICE: "Device that runs the graphs: cpu, cuda:N or tensorrt:N.",
  MOEVIE_INTRA_OP_THREADS: "Threads of one graph session.",
  MOEVIE_LOG_FORMAT: "json or pretty.",
  MOEVIE_LOG_LEVEL: "trace, debug, info, warn, error or fatal.",
  MOEVIE_TEXT_ENCODER: "Address of the text-encoder.",
  MOEVIE_ROUTER: "Address of the router.",
  MOEVIE_DECODER: "Address of the decoder.",
  MOEVIE_SHARDS:
    "Addresses of the expert-shards, comma separated; shard-{0-63}.shards:7900, or a number in a socket's path, stands for those of a row that are there.",
  MOEVIE_METRICS_PEERS: "name=address of the HTTP servers whose metrics the gateway shows too, comma separated.",
  MOEVIE_SHARD_INDEX: "Which shard this is, from 0.",
  MOEVIE_SHARD_COUNT: "How many shards share the experts when they start; one with a higher index starts without any.",
  MOEVIE_LEAVE_MS:
    "Milliseconds that a shard which is told to end goes on, so that a controller can move its experts elsewhere; 0, the default: none.",
  MOEVIE_PLACEMENT_FILE:
    "JSON file that says which slots each shard holds, as `moevie experts plan --json` prints it; default: spread evenly, or by steps served.",
  MOEVIE_ROUTERS_HTTP: "HTTP addresses of the routers whose loads a controller counts, comma separated.",
  MOEVIE_KUBERNETES_LEASE:
    "NAMESPACE/NAME of the Lease by which a controller leads; its placement is in the ConfigMap NAME-placement. Unset: files in MOEVIE_DATA.",
  MOEVIE_KUBECONFIG: "File that says how to reach the Kubernetes API; unset: the account of the pod.",
  MOEVIE_SLOTS:
    "Slots of a layer over all shards, for a controller: a multiple of the shards; 0, the default: one for each expert.",
  MOEVIE_PLAN_MS: "Milliseconds between two looks of a controller at loads and shards.",
  MOEVIE_PLAN_GAIN_MIN: "What balancedness has to gain for experts to move.",
  MOEVIE_PLAN_AGE_MS_MIN: "Milliseconds that experts stay where they are, whatever could be gained.",
  MOEVIE_REST_RATIO:
    "How much longer than a change took a controller rests after it, while nothing waits for an expert.",
  MOEVIE_LOAD_HALF_LIFE_MS: "Milliseconds after which a row that a router counted counts half.",
  MOEVIE_SEGMENT_DIR:
    "Memory-backed folder through which rows go between a router and shards on its host that listen on socket files, /dev/shm when not set; none: by the socket.",
  MOEVIE_WIRE_TYPE: "Element type of rows between router and shards: f32, bf16 or f16.",
  MOEVIE_BATCH_MAX: "Evaluations of several jobs that the router runs as one batch; 1: each runs alone.",
  MOEVIE_BRANCH_ROWS_MIN:
    "With fewer rows than this the two branches of a job run as one batch too, else they take turns.",
  MOEVIE_DONOR_AFTER_MS:
    "Milliseconds that a step waits for an expert no shard holds before another shard is asked to load it; 2000 by default.",
  MOEVIE_HEDGE_SHARE:
    "Times for each exchange that rows may go to another holder too when a shard is late: at most 0.05 of them by default; 0: never.",
  MOEVIE_SCHEDULER_NAME:
    "Name of this scheduler in leases, no other's: started again under it, it takes its jobs back at once; unset: a new one each start.",
  MOEVIE_JOBS_RUNNING_MAX: "Jobs this scheduler runs side by side.",
  MOEVIE_CHECKPOINT_STEPS: "Steps between two checkpoints at least.",
  MOEVIE_CHECKPOINT_SHARE:
    "Largest share of the steps' time that checkpoints may take, 0.01 by default: how many steps lie between two follows from what the store took for the last ones.",
  MOEVIE_PREVIEW_STEPS: "Steps between two preview pictures; 0: none.",
  MOEVIE_FINISHED_JOBS_MAX: "Finished jobs kept, with clips and events; beyond it those that ended first are removed.",
  MOEVIE_FINISHED_DAYS_MAX: "Days a finished job is kept.",
  MOEVIE_CLIPS_GIB_MAX: "Clips of finished jobs kept, in GiB; beyond it those that ended first are removed.",
  MOEVIE_BACKUP_MINUTES: "Minutes between two copies of the SQLite job store, made when it changed; 0: none.",
  MOEVIE_LOG_PROMPTS: "1 to write prompts to the log.",
  MOEVIE_DECODE_TILE:
    "Pixels a side of the overlapping tiles in which the decoder decodes pictures, for devices without room for whole ones; 0, the default: whole.",
  MOEVIE_REFERENCE_DIR:
    "Folder in which requests may name tensors to begin with and to save, shared by gateway, scheduler and decoder; unset: they may not.",
  MOEVIE_REFLECTION: "0 to turn gRPC reflection off.",
  OTEL_EXPORTER_OTLP_ENDPOINT: "Where traces go by OTLP/HTTP; unset: tracing is not loaded.",
  OTEL_TRACES_SAMPLER_ARG: "Share of jobs that are traced, 0 to 1.",
} as const;

export type EnvironmentName = keyof typeof ENVIRONMENT;

/** Services that a prompt meets, in its order. */
export const SERVICES = ["gateway", "scheduler", "text-encoder", "router", "expert-shard", "decoder"] as const;
export type ServiceName = (typeof SERVICES)[number] | "controller";

/**
 * How Node runs a service: type stripping without its warning; no helper threads for the garbage collector, since the processes
 * of a cluster share their cores with graph threads and have small heaps; and compiled code is kept while the service is idle,
 * so that a job after a pause is not slower. What each is worth: docs/decisions/cluster-overhead-shared-memory.md.
 */
export const NODE_ARGUMENTS: readonly string[] = [
  "--disable-warning=ExperimentalWarning",
  "--single-threaded-gc",
  "--no-flush-bytecode",
];
