// A real S3 server, versitygw, on a free port, its objects files in a folder of its own; built from its pinned Go module into the cache
// once. Can be stopped, killed and started again on the same port and folder.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { cachedFolder } from "./cache.ts";
import { freePort } from "./free-port.ts";

const VERSION = "v1.8.0";
/** Hash of the module's archive as the checksum database gives it. */
const SUM = "h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=";
const MODULE = "github.com/versity/versitygw";
const READY_MS_MAX = 30_000;
const POLL_MS = 50;

export class S3Server {
  /** The first start builds it. */
  static readonly START_MS_MAX = 900_000;
  readonly endpoint: string;
  readonly accessKey = "moevie-test";
  readonly secretKey = "moevie-test-secret";
  readonly bucket = "checkpoints";
  readonly folder: string;
  readonly #port: number;
  #child: ChildProcess | undefined;

  private constructor(folder: string, port: number) {
    this.folder = folder;
    this.#port = port;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  /** With an empty bucket. */
  static async start(): Promise<S3Server> {
    const server = new S3Server(mkdtempSync(join(tmpdir(), "moevie-s3-")), await freePort());
    mkdirSync(join(server.folder, server.bucket));
    await server.again();
    return server;
  }

  /** What a client needs, but for a prefix. */
  get access() {
    const { endpoint, bucket, accessKey, secretKey } = this;
    return { endpoint, bucket, accessKey, secretKey, region: "us-east-1" };
  }

  /** Path of an object's bytes. */
  path(key: string): string {
    return join(this.folder, this.bucket, key);
  }

  async again(): Promise<void> {
    const env = { ...process.env, ROOT_ACCESS_KEY: this.accessKey, ROOT_SECRET_KEY: this.secretKey };
    const args = ["--port", `127.0.0.1:${this.#port}`, "--quiet", "posix", "--nometa", this.folder];
    const child = spawn(binary(), args, { stdio: "ignore", env });
    this.#child = child;
    const endMs = performance.now() + READY_MS_MAX;
    while (!(await listens(this.#port))) {
      if (performance.now() > endMs || child.exitCode !== null) throw new Error("versitygw did not start");
      await pause(POLL_MS);
    }
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Throws when it cannot be had. */
function binary(): string {
  const folder = cachedFolder(`versitygw-${VERSION}`, "versitygw", (scratch) => {
    const path = join(scratch, "path");
    const env = { ...process.env, GOPATH: path, GOBIN: join(scratch, "server"), GOFLAGS: "-modcacherw -trimpath" };
    const build = spawnSync("go", ["install", `${MODULE}/cmd/versitygw@${VERSION}`], {
      cwd: scratch,
      encoding: "utf8",
      env,
    });
    if (build.status !== 0)
      throw new Error(`cannot build versitygw ${VERSION}: ${build.stderr ?? String(build.error)}`);
    const sumFile = join(path, "pkg", "mod", "cache", "download", MODULE, "@v", `${VERSION}.ziphash`);
    const sum = readFileSync(sumFile, "utf8").trim();
    if (sum !== SUM) throw new Error(`versitygw ${VERSION} has hash ${sum}, expected ${SUM}`);
    return join(scratch, "server");
  });
  return join(folder, "versitygw");
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
