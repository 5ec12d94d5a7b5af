// A router and its expert-shards as real processes on Unix sockets, and one evaluation of the denoiser through the public
// DenoiseService: what exactness tests and benches run against.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { DenoiseRequest, DenoiseResponse } from "@moevie/contracts";
import { GrpcPeer, httpText, type BidiCall, type Loose } from "@moevie/runtime";
import type { Bundle } from "@moevie/bundle";
import type { Dense } from "./safetensors-file.ts";

export interface ClusterOptions {
  readonly bundleFolder: string;
  readonly shards: number;
  /** Explicit slots per shard instead of the even spread. */
  readonly placement?: readonly { readonly slots: readonly (readonly [number, number])[] }[];
  readonly wire?: "f32" | "bf16" | "f16";
  /** Loopback TCP instead of Unix sockets; the first port of a row of free ones. */
  readonly firstPort?: number;
  /** Milliseconds a shard that is told to end waits for its experts to go elsewhere. */
  readonly leaveMs?: number;
  /** Shards may join: router and controllers look for those of a numbered row. */
  readonly numbered?: boolean;
  /** Folder for the rows of processes on one host, or none; the default when not given. */
  readonly segmentFolder?: string;
  /** Routers from this one on have no such folder: their rows go by the socket. */
  readonly routersWithoutSegment?: number;
  /** Routers over the same shards; one when not given. */
  readonly routers?: number;
  /** What single shards are told beside the rest, by their number. */
  readonly shardSettings?: Readonly<Record<number, Readonly<Record<string, string>>>>;
}

export interface Evaluation {
  readonly velocity: Float32Array;
  readonly trunkUs: number;
  readonly exchangeWaitUs: number;
  readonly totalUs: number;
}

const READY_MS_MAX = 120_000;
/** One stream of evaluations, with whatever they wait for. */
const STREAM_MS_MAX = 120_000;

function entryOf(service: string): string {
  return fileURLToPath(new URL(`../../packages/${service}/src/main.ts`, import.meta.url));
}

function routerName(at: number): string {
  return at === 0 ? "router" : `router-${at}`;
}

export class DenoiseCluster {
  readonly #folder: string;
  readonly #options: ClusterOptions;
  readonly #shards: ChildProcess[] = [];
  readonly #routers: readonly ChildProcess[];
  readonly #controllers: ChildProcess[] = [];
  readonly #others: ChildProcess[] = [];
  readonly #peers: readonly GrpcPeer<"moevie.v1.DenoiseService">[];

  private constructor(options: ClusterOptions) {
    this.#options = options;
    this.#folder = mkdtempSync(join(tmpdir(), "moevie-cluster-"));
    if (options.placement !== undefined) {
      writeFileSync(join(this.#folder, "placement.json"), JSON.stringify({ epoch: 1, shards: options.placement }));
    }
    for (let index = 0; index < options.shards; index++) this.startShard(index);
    const settings = {
      MOEVIE_SHARDS: this.#shardAddresses(),
      MOEVIE_WIRE_TYPE: options.wire ?? "f32",
      ...this.#segments(),
    };
    const names = Array.from({ length: options.routers ?? 1 }, (_, at) => routerName(at));
    const listens = names.map((name) => `unix:${join(this.#folder, `${name}.sock`)}`);
    const bare = { ...settings, MOEVIE_SEGMENT_DIR: "none" };
    const bareFrom = options.routersWithoutSegment ?? names.length;
    this.#routers = names.map((name, at) => this.#spawn("router", name, listens[at]!, at < bareFrom ? settings : bare));
    this.#peers = listens.map((listen) => new GrpcPeer("moevie.v1.DenoiseService", listen));
  }

  /** Starts the processes and waits until the router is ready. */
  static async start(options: ClusterOptions): Promise<DenoiseCluster> {
    const cluster = new DenoiseCluster(options);
    try {
      for (const peer of cluster.#peers) await peer.waitReady({ timeoutMs: READY_MS_MAX });
    } catch (thrown) {
      await cluster.close();
      throw thrown;
    }
    return cluster;
  }

  /** Starts shard `index`, the first time or again; one beyond those the cluster began with has no experts. */
  startShard(index: number): void {
    const placed =
      this.#options.placement === undefined ? {} : { MOEVIE_PLACEMENT_FILE: join(this.#folder, "placement.json") };
    this.#shards[index] = this.#spawn("expert-shard", `shard-${index}`, this.#address(index), {
      MOEVIE_SHARD_INDEX: String(index),
      MOEVIE_SHARD_COUNT: String(this.#options.shards),
      MOEVIE_LEAVE_MS: String(this.#options.leaveMs ?? 0),
      ...placed,
      ...this.#segments(),
      ...this.#options.shardSettings?.[index],
    });
  }

  /** What the shard holds, and the way to change it; the caller closes it. */
  placementOf(index: number): GrpcPeer<"moevie.v1.PlacementService"> {
    return new GrpcPeer("moevie.v1.PlacementService", this.#address(index));
  }

  /** Experts of each layer that a shard says it holds, [layers][experts]. */
  async heldBy(index: number, layers: number): Promise<number[][]> {
    const shard = this.placementOf(index);
    try {
      const { experts } = await shard.unary("GetHoldings", {}, { timeoutMs: 10_000 });
      return Array.from({ length: layers }, (_, layer) =>
        experts.flatMap((held) => (held.layer === layer ? [held.expert] : [])),
      );
    } finally {
      shard.close();
    }
  }

  /**
   * One more controller; they share a lease. It looks and moves as fast as it can unless `settings` say otherwise. `onLog` gets the text of
   * its log as it comes.
   */
  startController(settings: Record<string, string> = {}, onLog?: (text: string) => void): ChildProcess {
    const name = `controller-${this.#controllers.length}`;
    const controller = this.#spawn(
      "controller",
      name,
      `unix:${join(this.#folder, `${name}.sock`)}`,
      {
        MOEVIE_DATA: join(this.#folder, "data"),
        MOEVIE_SHARDS: this.#shardAddresses(),
        MOEVIE_ROUTERS_HTTP: this.#routers
          .map((_, at) => `unix:${join(this.#folder, `${routerName(at)}.http.sock`)}`)
          .join(),
        MOEVIE_PLAN_MS: "50",
        MOEVIE_PLAN_AGE_MS_MIN: "0",
        MOEVIE_REST_RATIO: "0",
        ...settings,
      },
      onLog,
    );
    this.#controllers.push(controller);
    return controller;
  }

  /** The services that make whole clips with the first router; the gateway's address. They are ready a little later. */
  startClips(): string {
    const at = (name: string): string => `unix:${join(this.#folder, `${name}.sock`)}`;
    const data = { MOEVIE_DATA: join(this.#folder, "data"), MOEVIE_RUN_DIR: this.#folder };
    const peers = {
      MOEVIE_TEXT_ENCODER: at("text-encoder"),
      MOEVIE_ROUTER: at(routerName(0)),
      MOEVIE_DECODER: at("decoder"),
    };
    for (const service of ["gateway", "scheduler", "text-encoder", "decoder"])
      this.#others.push(this.#spawn(service, service, at(service), { ...data, ...peers }));
    return at("gateway");
  }

  /** What the controller with this number answers at /plan; undefined while it does not. */
  async plan(number: number): Promise<Record<string, unknown> | undefined> {
    const address = `unix:${join(this.#folder, `controller-${number}.http.sock`)}`;
    const text = await httpText({ address, setting: "controller", path: "/plan" }).catch(() => "");
    return text.startsWith("{") ? (JSON.parse(text) as Record<string, unknown>) : undefined;
  }

  /** SIGTERM; resolves with its exit code. */
  endShard(index: number): Promise<number | null> {
    const shard = this.#shards[index]!;
    const ended = new Promise<number | null>((resolve) => shard.once("exit", resolve));
    shard.kill("SIGTERM");
    return ended;
  }

  /** kill -9. */
  killShard(index: number): void {
    this.#shards[index]?.kill("SIGKILL");
  }

  /** kill -9. */
  killRouter(index: number): void {
    this.#routers[index]?.kill("SIGKILL");
  }

  /** SIGSTOP: it takes and answers nothing, and its sockets stay open; `false` lets it go on. */
  stopShard(index: number, stopped = true): void {
    this.#shards[index]?.kill(stopped ? "SIGSTOP" : "SIGCONT");
  }

  /** A caller of evaluations, one after the other on one stream; to be closed. */
  caller(bundle: Bundle, router = 0): DenoiseCaller {
    return new DenoiseCaller(bundle, this.#peers[router]!.open("Denoise", { timeoutMs: STREAM_MS_MAX }));
  }

  /** One evaluation, [channels, frames, height, width], by a caller of its own. */
  async denoise(
    bundle: Bundle,
    latent: Dense,
    timestep: number,
    rows: Dense,
    origin = 0,
    variant = "",
    router = 0,
  ): Promise<Evaluation> {
    const caller = this.caller(bundle, router);
    try {
      return await caller.evaluate(latent, timestep, rows, origin, variant);
    } finally {
      caller.close();
    }
  }

  /** The metrics page of a process; the first router's when none is named. */
  metrics(name = "router"): Promise<string> {
    return this.#page(name, "/metrics");
  }

  /** Rows by layer and expert since a router's start, and what it knows shards to hold. */
  async experts(
    name = "router",
  ): Promise<{ rows: number[][]; shards: { slots: [layer: number, expert: number][] }[] }> {
    return JSON.parse(await this.#page(name, "/experts"));
  }

  async close(): Promise<void> {
    for (const peer of this.#peers) peer.close();
    const children = [...this.#others, ...this.#routers, ...this.#shards, ...this.#controllers];
    const ended = children.map((child) => {
      if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
      return new Promise((resolve) => child.once("exit", resolve));
    });
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(ended);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #page(name: string, path: string): Promise<string> {
    return httpText({ address: `unix:${join(this.#folder, `${name}.http.sock`)}`, setting: name, path });
  }

  #shardAddresses(): string {
    if (this.#options.numbered === true) return `unix:${join(this.#folder, "shard-{0-63}.sock")}`;
    return Array.from({ length: this.#options.shards }, (_, index) => this.#address(index)).join(",");
  }

  #segments(): Record<string, string> {
    const { segmentFolder } = this.#options;
    return segmentFolder === undefined ? {} : { MOEVIE_SEGMENT_DIR: segmentFolder };
  }

  #address(index: number): string {
    const { firstPort } = this.#options;
    return firstPort === undefined
      ? `unix:${join(this.#folder, `shard-${index}.sock`)}`
      : `127.0.0.1:${firstPort + index}`;
  }

  #spawn(
    service: string,
    name: string,
    listen: string,
    settings: Record<string, string>,
    onLog?: (text: string) => void,
  ): ChildProcess {
    const child = spawn(process.execPath, [entryOf(service)], {
      stdio: ["ignore", "ignore", onLog === undefined ? "inherit" : "pipe"],
      env: {
        PATH: process.env["PATH"] ?? "",
        MOEVIE_GRPC_LISTEN: listen,
        MOEVIE_HTTP_LISTEN: `unix:${join(this.#folder, `${name}.http.sock`)}`,
        MOEVIE_BUNDLE: this.#options.bundleFolder,
        MOEVIE_LOG_LEVEL: "error",
        ...settings,
      },
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => onLog?.(text));
    return child;
  }
}

/** A stream to the router that asks for one evaluation at a time. */
export class DenoiseCaller {
  readonly #bundle: Bundle;
  readonly #call: BidiCall<Loose<DenoiseRequest>, DenoiseResponse>;

  constructor(bundle: Bundle, call: BidiCall<Loose<DenoiseRequest>, DenoiseResponse>) {
    this.#bundle = bundle;
    this.#call = call;
  }

  /** The context is sent where the router lacks it. */
  async evaluate(
    latent: Dense,
    timestep: number,
    rows: Dense,
    origin = 0,
    variant = "",
    branch: "BRANCH_CONDITIONAL" | "BRANCH_UNCONDITIONAL" = "BRANCH_CONDITIONAL",
  ): Promise<Evaluation> {
    const contextHash = createHash("sha256").update(bytesOf(rows.data)).digest("hex");
    const asked = { bundleDigest: this.#bundle.digest, latent: tensor(latent), timestep, contextHash, origin, variant };
    await this.#send({ head: { ...asked, branch } }, bytesOf(latent.data));
    const velocity = new Uint8Array(latent.data.byteLength);
    let times = { trunkUs: 0, exchangeWaitUs: 0, totalUs: 0 };
    for (let filled = 0; filled < velocity.length;) {
      const answer = await this.#call.receive();
      if (answer === undefined) throw new Error(`${filled} of ${velocity.length} bytes of velocity came`);
      if (answer.contextMissing !== undefined)
        await this.#send({ context: { contextHash, rows: tensor(rows), variant } }, bytesOf(rows.data));
      else if (answer.head !== undefined) times = answer.head;
      else if (answer.chunk !== undefined) {
        velocity.set(answer.chunk, filled);
        filled += answer.chunk.length;
      }
    }
    const { trunkUs, exchangeWaitUs, totalUs } = times;
    return { velocity: new Float32Array(velocity.buffer), trunkUs, exchangeWaitUs, totalUs };
  }

  close(): void {
    this.#call.cancel();
  }

  async #send(head: Loose<DenoiseRequest>, bytes: Buffer): Promise<void> {
    await this.#call.send(head);
    for (let at = 0; at < bytes.length; at += 1_048_576)
      await this.#call.send({ chunk: bytes.subarray(at, at + 1_048_576) });
  }
}

function tensor({ shape }: Dense): { elementType: "ELEMENT_TYPE_F32"; shape: number[] } {
  return { elementType: "ELEMENT_TYPE_F32", shape: [...shape] };
}

function bytesOf(data: Float32Array): Buffer {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}
