// A whole cluster of the command line's own processes, on either job store, to be hurt at random: kill -9, SIGSTOP, and a NATS server that
// dies or stays away, a wall clock that jumps. Its clients repeat what failed, as clients should, and every clip is held against the one of a calm run.
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { openBundle } from "@moevie/bundle";
import { VideoClient, type Operation, type Video } from "@moevie/client";
import { asMoevieError, limit, type MoevieError } from "@moevie/contracts";
import { philox4x32 } from "@moevie/diffusion";
import { importStarter } from "@moevie/importer";
import { httpText } from "@moevie/runtime";
import { CliSession, type RunningCommand } from "../e2e/cli-session.ts";
import { writeTinyModel } from "../parity/tiny.ts";
import { NatsServer } from "../support/nats-server.ts";
import { ShiftedClock } from "../support/shifted-clock.ts";
import { tokenDenoiser } from "../support/token-denoiser.ts";
import { natsBooks, sqliteBooks, type StoreBooks } from "./store-books.ts";

export type StoreKind = "sqlite" | "nats";

export interface ChaosOptions {
  readonly store: StoreKind;
  readonly seed: number;
  /** Names of services that are hurt. */
  readonly victims: readonly string[];
  /** Every expert lies on two shards. */
  readonly copies: boolean;
  /** The wall clock of all processes can be shifted. */
  readonly shiftedClock?: boolean;
}

/** One fault. */
export interface Fault {
  /** Of which kind, e.g. "router killed". */
  readonly kind: string;
  /** The same with its figures. */
  readonly text: string;
  /** By `performance.now()`, when it struck. */
  readonly atMs: number;
}

/** What a client saw while the NATS server was away. */
export interface Outage {
  /** How its calls ended, one after the other. */
  readonly errors: readonly MoevieError[];
  readonly slowestMs: number;
}

const SHARDS = 4;
/** Between two faults, and how long a stopped process stays stopped. */
const [CALM_MS, STOPPED_MS] = [
  [300, 1500],
  [200, 2500],
] as const;
const KILLED_SHARE = 0.6;
/** A NATS server stays away for this long. */
const AWAY_MS = 500;
const WAIT_MS = 20_000;
const RETRY_MS = 200;
/** A clip that takes longer is lost. */
const CLIP_MS_MAX = 240_000;

export const SHARD_NAMES = Array.from({ length: SHARDS }, (_, shard) => `expert-shard-${shard}`);
/** Everything a supervisor starts. */
export const SERVICE_NAMES = ["gateway", "scheduler", "text-encoder", "router", "decoder", ...SHARD_NAMES];

/** Numbers from 0 to 1 by the seed. */
function* uniform(seed: number): Generator<number, never> {
  const words = new Uint32Array(4);
  for (let counter = 0; ; counter++) {
    philox4x32([counter, 0, 0, 0], [seed, 1], words);
    for (const word of words) yield word / 2 ** 32;
  }
}

/** Writes a placement with every expert of `bundle` on two shards; its file. */
async function writeCopies(bundle: string, folder: string): Promise<string> {
  const { layers, experts } = tokenDenoiser(await openBundle(bundle));
  const all = Array.from({ length: layers * experts }, (_, at) => [Math.floor(at / experts), at % experts] as const);
  const shards = SHARD_NAMES.map((_, shard) => ({
    slots: all.filter(([layer, expert]) => [shard, (shard + 1) % SHARDS].includes((layer + expert) % SHARDS)),
  }));
  const file = join(folder, "placement.json");
  writeFileSync(file, JSON.stringify({ epoch: 1, shards }));
  return file;
}

function dataOf(session: CliSession): string {
  return join(session.folder, "jobs");
}

export class ChaosCluster {
  readonly #options: ChaosOptions;
  readonly #scratch: string;
  readonly #session: CliSession;
  readonly #server: RunningCommand;
  readonly #client: VideoClient;
  readonly #http: string;
  readonly #nats: NatsServer | undefined;
  readonly #clock: ShiftedClock | undefined;
  readonly #random: Generator<number, never>;
  /** Clips that were asked for. */
  asked = 0;

  private constructor(
    options: ChaosOptions,
    parts: {
      readonly scratch: string;
      readonly session: CliSession;
      readonly server: RunningCommand;
      readonly client: VideoClient;
      readonly http: string;
      readonly nats: NatsServer | undefined;
      readonly clock: ShiftedClock | undefined;
    },
  ) {
    this.#options = options;
    this.#scratch = parts.scratch;
    this.#session = parts.session;
    this.#server = parts.server;
    this.#client = parts.client;
    this.#http = parts.http;
    this.#nats = parts.nats;
    this.#clock = parts.clock;
    this.#random = uniform(options.seed);
  }

  static async start(options: ChaosOptions): Promise<ChaosCluster> {
    const scratch = mkdtempSync(join(tmpdir(), "moevie-chaos-"));
    writeTinyModel(join(scratch, "model"));
    const bundle = join(scratch, "bundle");
    await importStarter(join(scratch, "model"), bundle);
    const nats = options.store === "nats" ? await NatsServer.start() : undefined;
    const clock = options.shiftedClock === true ? new ShiftedClock(scratch) : undefined;
    const session = new CliSession({
      // However little a step of this model takes: a job that is hurt must find one.
      MOEVIE_CHECKPOINT_SHARE: "1",
      MOEVIE_CHECKPOINT_STEPS: "5",
      ...(options.copies && { MOEVIE_PLACEMENT_FILE: await writeCopies(bundle, scratch) }),
      ...clock?.environment,
    });
    const where = nats === undefined ? ["--data", dataOf(session)] : ["--nats", nats.url];
    const ports = ["--grpc-port", "0", "--http-port", "0"];
    const server = session.start("serve", "--model", bundle, "--shards", `${SHARDS}`, ...ports, ...where, "--json");
    await server.says(/^\{"grpc".*\}$/m);
    const { grpc, http } = JSON.parse(server.stdout) as { readonly grpc: string; readonly http: string };
    return new ChaosCluster(options, { scratch, session, server, client: new VideoClient(grpc), http, nats, clock });
  }

  /** The finished clip of a kind; calls that fail for a while are repeated. Throws what ends the job otherwise. */
  async makeClip(kind: number): Promise<Video> {
    const endMs = performance.now() + CLIP_MS_MAX;
    const requestId = randomUUID();
    this.asked += 1;
    let now = await persist(() => this.#submit(kind, requestId), endMs);
    while (!now.done) now = await persist(() => this.#client.waitOperation(now.name, WAIT_MS), endMs);
    return persist(() => this.#client.getVideo(now.name.replace(/^operations\//, "videos/")), endMs);
  }

  #submit(kind: number, requestId: string): Promise<Operation> {
    const spec = { prompt: `clip ${kind}`, seed: kind, size: "256x256", seconds: 0.5, steps: 30 };
    return this.#client.createVideo(spec, { requestId });
  }

  /** How many jobs the store knows. */
  async jobCount(): Promise<number> {
    let count = 0;
    for (let pageToken = "", more = true; more; more = pageToken !== "") {
      const page = await persist(() => this.#client.listVideos({ pageSize: 100, pageToken }), Infinity);
      count += page.videos.length;
      pageToken = page.nextPageToken;
    }
    return count;
  }

  /** A while in which nothing goes wrong. */
  calm(): Promise<void> {
    return pause(this.#between(CALM_MS));
  }

  /** One fault, after a while of calm; resolves when the process runs again, and says what it was. */
  async strike(): Promise<Fault> {
    await this.calm();
    const victims = [...this.#options.victims, ...(this.#nats === undefined ? [] : ["nats-server"])];
    const victim = victims[Math.floor(this.#random.next().value * victims.length)] ?? "";
    const isKilled = this.#random.next().value < KILLED_SHARE;
    const stoppedMs = this.#between(STOPPED_MS);
    const atMs = performance.now();
    if (victim === "nats-server") {
      await this.#nats?.kill();
      await pause(AWAY_MS);
      await this.#nats?.again();
      return fault(atMs, "nats-server killed");
    }
    const pid = this.#session.pidOf(victim);
    if (isKilled) {
      const back = this.#back(victim);
      process.kill(pid, "SIGKILL");
      await back;
      return fault(atMs, `${victim} killed`);
    }
    process.kill(pid, "SIGSTOP");
    await pause(stoppedMs);
    process.kill(pid, "SIGCONT");
    return fault(atMs, `${victim} stopped`, ` for ${Math.round(stoppedMs)} ms`);
  }

  /**
   * SIGTERM to a service in the middle of a clip; resolves when it runs again. Throws when it takes more work while it drains, and unless it
   * ends by itself, within its time and with exit code 0.
   */
  async terminate(victim: string): Promise<Fault> {
    await this.#untilStage(victim === "decoder" ? "VIDEO_STAGE_DECODE" : "VIDEO_STAGE_DENOISE");
    const pid = this.#session.pidOf(victim);
    const died = new RegExp(`${victim} died: (.*); starting it again`, "g");
    const deaths = this.#server.stderr.match(died)?.length ?? 0;
    const back = this.#back(victim);
    const atMs = performance.now();
    process.kill(pid, "SIGTERM");
    const readyWhenDraining = await this.#readyWhenDraining(victim, pid);
    const tookMs = Math.round(performance.now() - atMs);
    await back;
    const cause = [...this.#server.stderr.matchAll(died)][deaths]?.[1] ?? "";
    if (!cause.startsWith("it ended with exit code 0") || tookMs > limit("drainMsMax"))
      throw new Error(`${victim} after SIGTERM: ${cause}, ${tookMs} ms of ${limit("drainMsMax")}`);
    if (readyWhenDraining > 0) throw new Error(`${victim} said ${readyWhenDraining} times that it is ready, draining`);
    return fault(atMs, `${victim} told to end`, ` in ${tookMs} ms`);
  }

  /** How many times a process says that it takes work, from the moment that it drains until it is gone. */
  async #readyWhenDraining(victim: string, pid: number): Promise<number> {
    const run = readdirSync(this.#session.temporary).find((name) => name.startsWith("moevie-")) ?? "";
    const socket = `unix:${join(this.#session.temporary, run, `${victim}.http.sock`)}`;
    const address = victim === "gateway" ? this.#http.replace("http://", "") : socket;
    const isAlive = (): boolean => this.#session.processes().some(([id]) => id === pid);
    let [ready, isDraining] = [0, false];
    while (isAlive()) {
      const ask = (path: string): Promise<string> => httpText({ address, setting: victim, path });
      const page = await ask("/metrics").catch(() => "");
      isDraining ||= new RegExp(`^moevie_draining\\{.*service="${victim}".*\\} 1$`, "m").test(page);
      if (isDraining && (await ask("/readyz").catch(() => undefined)) !== undefined && isAlive()) ready++;
      await pause(10);
    }
    return ready;
  }

  /** Waits until a clip is in the middle of `stage`. */
  async #untilStage(stage: string): Promise<void> {
    const isThere = ({ progress }: Video): boolean =>
      progress?.stage === stage && (stage !== "VIDEO_STAGE_DENOISE" || progress.step > 2);
    for (;;) {
      const { videos } = await persist(() => this.#client.listVideos({ pageSize: 10 }), Infinity);
      if (videos.some((video) => video.state === "VIDEO_STATE_RUNNING" && isThere(video))) return;
      await pause(10);
    }
  }

  /** Resolves when the supervisor says once more that a service is back. */
  async #back(victim: string): Promise<void> {
    const times = (): number => this.#server.stderr.split(`${victim} is back`).length;
    const before = times();
    while (times() === before) await pause(50);
  }

  /** After a while of calm the wall clock of all processes is so many hours off, for one clip at least. Throws when they do not go by it. */
  async jump(hours: number): Promise<Fault> {
    await this.calm();
    const atMs = performance.now();
    this.#clock?.shift(hours * 3600);
    const { createTime } = await this.makeClip(0);
    const offHours = (Number(createTime?.seconds) - Date.now() / 1000) / 3600;
    if (Math.abs(offHours - hours) > 0.25) throw new Error(`the wall clock is ${offHours} h off, not ${hours} h`);
    return fault(atMs, "wall clock off", ` by ${hours} h`);
  }

  /** The NATS server is away for so long, while a client goes on submitting clips of kind 0: that job is not to come of it. */
  async outage(ms: number): Promise<Outage> {
    await this.#nats?.kill();
    const endMs = performance.now() + ms;
    const errors: MoevieError[] = [];
    let slowestMs = 0;
    for (;;) {
      const startMs = performance.now();
      if (startMs > endMs) break;
      const error = await this.#submit(0, randomUUID()).then(
        () => undefined,
        (thrown: unknown) => asMoevieError(thrown),
      );
      slowestMs = Math.max(slowestMs, performance.now() - startMs);
      if (error === undefined) throw new Error("a job was accepted while the NATS server was away");
      errors.push(error);
      await pause(RETRY_MS);
    }
    await this.#nats?.again();
    return { errors, slowestMs };
  }

  #between([from, to]: readonly [number, number]): number {
    return from + this.#random.next().value * (to - from);
  }

  /** Ends the cluster as Ctrl-C does; what its store holds then. Throws when a process, a socket, shared memory or a temporary file is left. */
  async finish(): Promise<StoreBooks> {
    this.#server.child.kill("SIGINT");
    await this.#server.finished;
    await this.#session.untilNothingLeft();
    return this.#nats === undefined ? await sqliteBooks(dataOf(this.#session)) : await natsBooks(this.#nats.url);
  }

  async close(): Promise<void> {
    this.#client.close();
    this.#session.close();
    await this.#nats?.close();
    rmSync(this.#scratch, { recursive: true, force: true });
  }
}

/** A fault of a kind; a shard by any number is one kind. */
export function fault(atMs: number, kind: string, more = ""): Fault {
  return { kind: kind.replace(/-\d+ /, " "), text: `${kind}${more}`, atMs };
}

/** Repeats `call` while it fails with what may pass, up to `endMs`. */
async function persist<T>(call: () => Promise<T>, endMs: number): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (thrown) {
      const error = asMoevieError(thrown);
      if (!error.retryable || performance.now() > endMs) throw thrown;
      await pause(RETRY_MS);
    }
  }
}
