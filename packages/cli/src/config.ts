// The CLI's settings from the environment. The only file of the CLI that reads process.env.
import { homedir, tmpdir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export interface CliConfig {
  /** Root of the installed project: holds packages/. */
  readonly root: string;
  /** Folder of things that can be made again: bundles built from the starter model. */
  readonly cacheDir: string;
  /** Where `serve` keeps jobs and clips unless told otherwise; undefined for a user without a home. */
  readonly dataDir: string | undefined;
  /** Parent of run folders. */
  readonly temporaryDir: string;
  /** Set when the operator asked for logs: they then go to stderr also in `generate`. */
  readonly logLevel: string | undefined;
  /** What child processes start from. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Longest temporary folder under which a Unix socket's path still fits the kernel's 108 bytes. */
const TEMPORARY_PATH_BYTES_MAX = 64;

/** ONNX Runtime would report its use to its maker and leave files in the temporary folder; nothing leaves this machine unasked. */
const NO_TELEMETRY = { ORT_DISABLE_TELEMETRY: "1" } as const;

function presentEntries(env: NodeJS.ProcessEnv): Record<string, string> {
  const entries: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) if (value !== undefined) entries[name] = value;
  return entries;
}

/** The folder of this user's data; undefined when there is neither XDG_DATA_HOME nor a home. */
function dataHome(env: NodeJS.ProcessEnv): string | undefined {
  const named = env["XDG_DATA_HOME"];
  if (named !== undefined && isAbsolute(named)) return named;
  try {
    const home = homedir();
    return isAbsolute(home) ? join(home, ".local", "share") : undefined;
  } catch {
    // A user that is not in the list of users, with HOME unset.
    return undefined;
  }
}

/** Reads and freezes the settings. Never throws: a wrong log level is refused by the services, which name it. */
export function readCliConfig(env: NodeJS.ProcessEnv = process.env): CliConfig {
  const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..");
  const temporary = resolve(tmpdir());
  const data = dataHome(env);
  const cache = env["MOEVIE_CACHE"];
  return Object.freeze({
    root,
    cacheDir: cache === undefined || cache === "" ? join(root, ".cache") : resolve(cache),
    dataDir: data === undefined ? undefined : join(data, "moevie"),
    temporaryDir: Buffer.byteLength(temporary) <= TEMPORARY_PATH_BYTES_MAX ? temporary : "/tmp",
    logLevel: env["MOEVIE_LOG_LEVEL"] === "" ? undefined : env["MOEVIE_LOG_LEVEL"],
    environment: Object.freeze({ ...presentEntries(env), ...NO_TELEMETRY }),
  });
}
