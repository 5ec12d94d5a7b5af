// A real nats-server with JetStream on a free port, its store in a folder of its own; alone or as one of a cluster. Can be killed and
// started again on the same port and store.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { freePort } from "./free-port.ts";
import { natsBinary, type NatsVersion } from "./nats-binaries.ts";

const READY_MS_MAX = 30_000;
const POLL_MS = 50;
/** Clusters that are started anew when one does not come together. */
const STARTS_MAX = 3;

export interface NatsServerOptions {
  readonly version?: NatsVersion;
  /** Lines added to the configuration file. */
  readonly configuration?: string;
  /** Bytes JetStream may store. */
  readonly storeBytesMax?: number;
}

interface Member {
  readonly name: string;
  readonly clusterPort: number;
  readonly routes: readonly number[];
}

export class NatsServer {
  readonly url: string;
  readonly folder: string;
  readonly #binary: string;
  readonly #port: number;
  readonly #monitorPort: number;
  #child: ChildProcess | undefined;

  private constructor(binary: string, folder: string, port: number, monitorPort: number) {
    this.#binary = binary;
    this.folder = folder;
    this.#port = port;
    this.#monitorPort = monitorPort;
    this.url = `nats://127.0.0.1:${port}`;
  }

  static async start(options: NatsServerOptions = {}, member?: Member): Promise<NatsServer> {
    const folder = mkdtempSync(join(tmpdir(), "moevie-nats-"));
    const [port, monitorPort] = [await freePort(), await freePort()];
    const server = new NatsServer(natsBinary(options.version ?? "current"), folder, port, monitorPort);
    const bytes = options.storeBytesMax ?? 4 * 2 ** 30;
    const cluster =
      member === undefined
        ? ""
        : `server_name: ${member.name}
cluster { name: moevie, listen: "127.0.0.1:${member.clusterPort}", routes: [${member.routes
            .map((route) => `"nats-route://127.0.0.1:${route}"`)
            .join(", ")}] }\n`;
    writeFileSync(
      join(folder, "nats.conf"),
      `listen: "127.0.0.1:${port}"
http: "127.0.0.1:${monitorPort}"
jetstream { store_dir: "${join(folder, "store")}", max_file_store: ${bytes} }
${cluster}${options.configuration ?? ""}\n`,
    );
    await server.again();
    return server;
  }

  /** Starts the process again after `kill`. */
  async again(): Promise<void> {
    const child = spawn(this.#binary, ["-c", join(this.folder, "nats.conf"), "-l", join(this.folder, "nats.log")], {
      stdio: "ignore",
    });
    this.#child = child;
    const endMs = performance.now() + READY_MS_MAX;
    while (!(await listens(this.#port))) {
      if (performance.now() > endMs || child.exitCode !== null)
        throw new Error(`nats-server did not start: see ${join(this.folder, "nats.log")}`);
      await pause(POLL_MS);
    }
  }

  /** Ready to serve streams; in a cluster that needs a leader. */
  async isHealthy(): Promise<boolean> {
    try {
      return (await fetch(`http://127.0.0.1:${this.#monitorPort}/healthz?js-enabled-only=true`)).ok;
    } catch {
      return false;
    }
  }

  /** SIGKILL unless told otherwise; what was acknowledged lies in the folder. */
  async kill(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Three servers that share streams of three replicas. */
export async function startNatsCluster(options: NatsServerOptions = {}): Promise<readonly NatsServer[]> {
  for (let attempt = 1; ; attempt++) {
    const routes = [await freePort(), await freePort(), await freePort()];
    const servers = await Promise.all(
      routes.map((clusterPort, index) => NatsServer.start(options, { name: `nats-${index}`, clusterPort, routes })),
    );
    if (await allHealthy(servers)) return servers;
    const logs = servers.map(({ folder }) =>
      readFileSync(join(folder, "nats.log"), "utf8").split("\n").slice(-5).join("\n"),
    );
    for (const server of servers) await server.close();
    // A port that was free a moment ago may be another program's by now, and then two servers never meet.
    if (attempt === STARTS_MAX) throw new Error(`the NATS cluster has no leader:\n${logs.join("\n\n")}`);
  }
}

async function allHealthy(servers: readonly NatsServer[]): Promise<boolean> {
  const endMs = performance.now() + READY_MS_MAX;
  while (!(await Promise.all(servers.map((server) => server.isHealthy()))).every(Boolean)) {
    if (performance.now() > endMs) return false;
    await pause(POLL_MS);
  }
  return true;
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const settle = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => settle(true));
    socket.once("error", () => settle(false));
  });
}
