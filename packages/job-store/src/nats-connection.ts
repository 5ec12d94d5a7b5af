// The connection to NATS: who we are, how it is secured, how long a call may take, and what its errors mean. Reconnects for ever with
// a growing pause; nothing above it retries because of a lost connection but the owner of the call.
import { readFileSync } from "node:fs";
import { MoevieError, limit } from "@moevie/contracts";
import { pause } from "@moevie/runtime";
import { JetStreamApiError } from "@nats-io/jetstream";
import {
  connect,
  credsAuthenticator,
  errors,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
  type Authenticator,
  type NatsConnection,
  type TlsOptions,
} from "@nats-io/transport-node";

export interface NatsAccess {
  /** nats://HOST:PORT or tls://HOST:PORT; any server of one cluster. */
  readonly servers: readonly string[];
  readonly user?: string;
  readonly password?: string;
  readonly token?: string;
  /** Path of a credentials file. */
  readonly credentialsFile?: string;
  /** Paths of PEM files; with none of them TLS is used when the server or the address asks for it. */
  readonly tlsCaFile?: string;
  readonly tlsCertificateFile?: string;
  readonly tlsKeyFile?: string;
}

const RECONNECT_MS_MIN = 100;
const PING_MS = 10_000;

/** Connects, waiting at most readyWaitMsMax for the first server to answer. Throws CONFIG_INVALID and PEER_UNAVAILABLE. */
export async function connectNats(access: NatsAccess, name: string): Promise<NatsConnection> {
  const tls = tlsOptions(access);
  let tries = 0;
  const options = {
    name,
    servers: [...access.servers],
    authenticator: authenticators(access),
    ...(tls === undefined ? {} : { tls }),
    timeout: limit("natsCallMsMax"),
    maxReconnectAttempts: -1,
    // A password that is changed on the server first, and here a minute later, must not need a restart.
    ignoreAuthErrorAbort: true,
    pingInterval: PING_MS,
    reconnectDelayHandler: () => Math.min(RECONNECT_MS_MIN * 2 ** Math.min(tries++, 10), limit("connectRetryMsMax")),
  };
  const connection = await firstConnection(options);
  void (async () => {
    for await (const status of connection.status()) if (status.type === "reconnect") tries = 0;
  })();
  return connection;
}

async function firstConnection(options: Parameters<typeof connect>[0]): Promise<NatsConnection> {
  const endMs = performance.now() + limit("natsFirstConnectMsMax");
  for (;;) {
    try {
      return await connect(options);
    } catch (thrown) {
      const error = natsError(thrown);
      if (!(error instanceof MoevieError) || error.reason !== "PEER_UNAVAILABLE" || performance.now() > endMs)
        throw error;
      await pause(RECONNECT_MS_MIN);
    }
  }
}

function authenticators(access: NatsAccess): Authenticator[] {
  const { user, password, token, credentialsFile } = access;
  return [
    ...(user === undefined ? [] : [usernamePasswordAuthenticator(user, password ?? "")]),
    ...(token === undefined ? [] : [tokenAuthenticator(token)]),
    ...(credentialsFile === undefined
      ? []
      : [credsAuthenticator(fileOf("MOEVIE_NATS_CREDENTIALS_FILE", credentialsFile))]),
  ];
}

function tlsOptions({ tlsCaFile, tlsCertificateFile, tlsKeyFile }: NatsAccess): TlsOptions | undefined {
  if (tlsCaFile === undefined && tlsCertificateFile === undefined && tlsKeyFile === undefined) return undefined;
  return {
    ...(tlsCaFile === undefined ? {} : { ca: textOf("MOEVIE_NATS_TLS_CA_FILE", tlsCaFile) }),
    ...(tlsCertificateFile === undefined
      ? {}
      : { cert: textOf("MOEVIE_NATS_TLS_CERTIFICATE_FILE", tlsCertificateFile) }),
    ...(tlsKeyFile === undefined ? {} : { key: textOf("MOEVIE_NATS_TLS_KEY_FILE", tlsKeyFile) }),
  };
}

function textOf(name: string, path: string): string {
  return fileOf(name, path).toString("utf8");
}

function fileOf(name: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "unknown";
    throw new MoevieError("CONFIG_INVALID", `${name} is "${path}"; allowed: a file that can be read (${code})`, {
      cause,
    });
  }
}

/** JetStream's err_code (nats-server server/errors.json): the ones that say there is no room. */
const NO_ROOM: ReadonlySet<number> = new Set([10023, 10047]);
const STREAM_WRONG_LAST_SEQUENCE = 10071;
const STREAM_WRONG_LAST_SEQUENCE_CONSTANT = 10164;
/** A failed store (10077) says in words why; while leaders change there are other reasons than room, and they pass. */
const NO_ROOM_TEXT = /maximum bytes exceeded|insufficient storage resources|no space left/i;

/** Was a compare-and-set refused because someone else wrote first? */
export function isConflict(thrown: unknown): boolean {
  return (
    thrown instanceof JetStreamApiError &&
    (thrown.code === STREAM_WRONG_LAST_SEQUENCE || thrown.code === STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
  );
}

/** What NATS reports as an error of the catalogue; anything else as it is. */
function natsError(thrown: unknown): unknown {
  if (thrown instanceof MoevieError || !(thrown instanceof Error)) return thrown;
  const options = { cause: thrown, detail: `${thrown.name}: ${thrown.message}` };
  if ((thrown instanceof JetStreamApiError && NO_ROOM.has(thrown.code)) || NO_ROOM_TEXT.test(thrown.message))
    return new MoevieError(
      "DISK_FULL",
      "There is no room left in the NATS server for the job's records or files.",
      options,
    );
  if (thrown instanceof errors.AuthorizationError || thrown instanceof errors.UserAuthenticationExpiredError)
    return new MoevieError(
      "CONFIG_INVALID",
      "The NATS server refused the credentials: see MOEVIE_NATS_USER and its neighbours.",
      options,
    );
  if (thrown instanceof errors.PermissionViolationError)
    return new MoevieError("CONFIG_INVALID", "The NATS user may not do what the job store needs.", options);
  return new MoevieError("PEER_UNAVAILABLE", "The NATS server does not answer.", options);
}

/** Runs `work` and throws what NATS reports as errors of the catalogue. */
export async function withNats<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    throw natsError(thrown);
  }
}
