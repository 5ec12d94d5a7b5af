// Which job store a service uses, from its settings: the one place that knows there are two. Services read STORE_SETTINGS with their own.
import { join } from "node:path";
import { MoevieError, TENANT_ALLOWED, isTenant, limit, type EnvironmentName } from "@moevie/contracts";
import type { Settings, SettingSpec } from "@moevie/runtime";
import { openCheckpointFolder } from "./checkpoint-folder.ts";
import type { LargeCheckpoints } from "./checkpoint-place.ts";
import { openCheckpointBucket } from "./checkpoint-s3.ts";
import type { EndedJob } from "./ended-jobs.ts";
import type { JobStore, Retention } from "./job-store.ts";
import type { NatsAccess } from "./nats-connection.ts";
import { openNatsStore } from "./open-nats-store.ts";
import type { TenantShares } from "./queue-order.ts";
import { openSqliteStore } from "./sqlite-store.ts";

const TENANT_RUNNING_CEILING = 10_000;
const CHECKPOINT_MIB_CEILING = 1024;
const WEIGHT_MIN = 0.01;
const WEIGHT_MAX = 100;
const REPLICAS = ["1", "3", "5"] as const;

export const STORE_SETTINGS = {
  MOEVIE_DATA: { kind: "path", default: "" },
  MOEVIE_NATS: { kind: "list", default: [] },
  MOEVIE_NATS_PREFIX: { kind: "string", default: "moevie" },
  MOEVIE_NATS_REPLICAS: { kind: "enum", values: REPLICAS, default: "1" },
  MOEVIE_NATS_USER: { kind: "string", default: "" },
  MOEVIE_NATS_PASSWORD: { kind: "string", default: "" },
  MOEVIE_NATS_TOKEN: { kind: "string", default: "" },
  MOEVIE_NATS_CREDENTIALS_FILE: { kind: "path", default: "" },
  MOEVIE_NATS_TLS_CA_FILE: { kind: "path", default: "" },
  MOEVIE_NATS_TLS_CERTIFICATE_FILE: { kind: "path", default: "" },
  MOEVIE_NATS_TLS_KEY_FILE: { kind: "path", default: "" },
  MOEVIE_CHECKPOINTS: { kind: "string", default: "" },
  MOEVIE_CHECKPOINTS_MIB_MIN: { kind: "int", min: 0, max: CHECKPOINT_MIB_CEILING, default: limit("natsCheckpointMib") },
  MOEVIE_S3_ENDPOINT: { kind: "url", default: "" },
  MOEVIE_S3_REGION: { kind: "string", default: "us-east-1" },
  MOEVIE_S3_ACCESS_KEY: { kind: "string", default: "" },
  MOEVIE_S3_SECRET_KEY: { kind: "string", default: "" },
  MOEVIE_TENANT_WEIGHTS: { kind: "list", default: [] },
  MOEVIE_TENANT_QUEUED_MAX: { kind: "int", min: 0, max: limit("jobsQueuedMax"), default: 0 },
  MOEVIE_TENANT_RUNNING_MAX: { kind: "int", min: 0, max: TENANT_RUNNING_CEILING, default: 0 },
} as const satisfies Partial<Record<EnvironmentName, SettingSpec>>;

export interface OpenOptions {
  readonly retention?: Retention;
  /** Pause between two copies of the file; a server's copies are its operator's. */
  readonly backupMs?: number;
  /** Hears of each job whose end this process wrote without holding its lease: at a deadline, for a caller, after its last attempt. */
  readonly onEnded?: (ended: EndedJob) => void;
  /** Hears, a line each, of what an operator should look at. */
  readonly onNotice: (line: string) => void;
}

/** The store on NATS when MOEVIE_NATS names servers, else the file in MOEVIE_DATA. Throws CONFIG_INVALID and what the stores throw. */
export async function openJobStore(
  config: Settings<typeof STORE_SETTINGS>,
  { retention, backupMs = 0, onEnded, onNotice }: OpenOptions,
): Promise<JobStore> {
  const kept = { shares: sharesOf(config), ...(retention && { retention }), ...(onEnded && { onEnded }) };
  if (config.MOEVIE_NATS.length > 0) {
    const prefix = checkedPrefix(config.MOEVIE_NATS_PREFIX);
    const replicas = Number(config.MOEVIE_NATS_REPLICAS);
    const large = await largeCheckpoints(config, onNotice);
    return await openNatsStore(natsAccess(config), { prefix, replicas, onNotice, ...kept, ...(large && { large }) });
  }
  if (config.MOEVIE_CHECKPOINTS !== "")
    throw new MoevieError(
      "CONFIG_INVALID",
      `MOEVIE_CHECKPOINTS is "${config.MOEVIE_CHECKPOINTS}"; allowed: with MOEVIE_NATS only, a store in a folder keeps checkpoints there`,
    );
  if (config.MOEVIE_DATA === "")
    throw new MoevieError(
      "CONFIG_INVALID",
      "MOEVIE_DATA is not set; allowed: an absolute path, or MOEVIE_NATS in its place",
    );
  return await openSqliteStore(join(config.MOEVIE_DATA, "jobs.db"), { ...kept, backupMs, onNotice });
}

const PLACES_ALLOWED = "file:///FOLDER or s3://BUCKET/PREFIX";

/** Throws CONFIG_INVALID that names the variable, and what opening the place throws. */
async function largeCheckpoints(
  config: Settings<typeof STORE_SETTINGS>,
  onNotice: (line: string) => void,
): Promise<LargeCheckpoints | undefined> {
  const given = config.MOEVIE_CHECKPOINTS;
  if (given === "") return undefined;
  const bytesMin = config.MOEVIE_CHECKPOINTS_MIB_MIN * 2 ** 20;
  const [, folder] = /^file:\/\/(\/.+)$/.exec(given) ?? [];
  // Clusters that share a place have names of their own in it: the sweep of one removes what no record of its own names.
  const own = config.MOEVIE_NATS_PREFIX;
  if (folder !== undefined) return { place: await openCheckpointFolder(join(folder, own)), bytesMin };
  const [, bucket, path = ""] = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/([\w./-]*))?$/.exec(given) ?? [];
  if (bucket === undefined)
    throw new MoevieError("CONFIG_INVALID", `MOEVIE_CHECKPOINTS is "${given}"; allowed: ${PLACES_ALLOWED}`);
  for (const name of ["MOEVIE_S3_ENDPOINT", "MOEVIE_S3_ACCESS_KEY", "MOEVIE_S3_SECRET_KEY"] as const)
    if (config[name] === "")
      throw new MoevieError(
        "CONFIG_INVALID",
        `${name} is not set; allowed: what the S3 server of MOEVIE_CHECKPOINTS needs, "${given}"`,
      );
  const access = {
    endpoint: config.MOEVIE_S3_ENDPOINT,
    region: config.MOEVIE_S3_REGION,
    bucket,
    prefix: `${path === "" ? "" : `${path.replace(/\/+$/, "")}/`}${own}/`,
    accessKey: config.MOEVIE_S3_ACCESS_KEY,
    secretKey: config.MOEVIE_S3_SECRET_KEY,
  };
  return { place: await openCheckpointBucket(access, onNotice), bytesMin };
}

function sharesOf(config: Settings<typeof STORE_SETTINGS>): TenantShares {
  return {
    weights: Object.fromEntries(config.MOEVIE_TENANT_WEIGHTS.map(checkedWeight)),
    queuedMax: config.MOEVIE_TENANT_QUEUED_MAX || Infinity,
    runningMax: config.MOEVIE_TENANT_RUNNING_MAX || Infinity,
  };
}

function checkedWeight(entry: string): readonly [string, number] {
  const [, tenant = "", text = ""] = /^([^=]+)=(\d+(?:\.\d+)?)$/.exec(entry) ?? [];
  const weight = Number(text);
  if (isTenant(tenant) && weight >= WEIGHT_MIN && weight <= WEIGHT_MAX) return [tenant, weight];
  const allowed = `tenant=weight, comma separated; a tenant is ${TENANT_ALLOWED}, a weight a number from ${WEIGHT_MIN} to ${WEIGHT_MAX}`;
  throw new MoevieError("CONFIG_INVALID", `MOEVIE_TENANT_WEIGHTS has "${entry}"; allowed: ${allowed}`);
}

function natsAccess(config: Settings<typeof STORE_SETTINGS>): NatsAccess {
  const given = {
    user: config.MOEVIE_NATS_USER,
    password: config.MOEVIE_NATS_PASSWORD,
    token: config.MOEVIE_NATS_TOKEN,
    credentialsFile: config.MOEVIE_NATS_CREDENTIALS_FILE,
    tlsCaFile: config.MOEVIE_NATS_TLS_CA_FILE,
    tlsCertificateFile: config.MOEVIE_NATS_TLS_CERTIFICATE_FILE,
    tlsKeyFile: config.MOEVIE_NATS_TLS_KEY_FILE,
  };
  const ways = [given.user, given.token, given.credentialsFile].filter((way) => way !== "");
  if (ways.length > 1)
    throw new MoevieError(
      "CONFIG_INVALID",
      "MOEVIE_NATS_USER, MOEVIE_NATS_TOKEN and MOEVIE_NATS_CREDENTIALS_FILE are set together; allowed: one of them",
    );
  if ((given.tlsCertificateFile === "") !== (given.tlsKeyFile === ""))
    throw new MoevieError(
      "CONFIG_INVALID",
      "One of MOEVIE_NATS_TLS_CERTIFICATE_FILE and MOEVIE_NATS_TLS_KEY_FILE is not set; allowed: both or none",
    );
  const present = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ""));
  return { servers: config.MOEVIE_NATS.map(checkedServer), ...present };
}

function checkedServer(server: string): string {
  const isServer = /^(nats|tls):\/\/[^/@\s]+$/.test(server) && URL.canParse(server);
  if (isServer) return server;
  // What stands before an @ may be a secret: it is not repeated.
  const shown = server.replace(/\/\/.*@/, "//…@");
  const allowed = "nats://HOST:PORT or tls://HOST:PORT, comma separated; credentials have variables of their own";
  throw new MoevieError("CONFIG_INVALID", `MOEVIE_NATS has "${shown}"; allowed: ${allowed}`);
}

function checkedPrefix(prefix: string): string {
  if (/^[A-Za-z0-9_-]{1,32}$/.test(prefix)) return prefix;
  const allowed = "1 to 32 letters, digits, - and _";
  throw new MoevieError("CONFIG_INVALID", `MOEVIE_NATS_PREFIX is "${prefix}"; allowed: ${allowed}`);
}
