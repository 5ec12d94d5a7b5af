// The processes of a simulation: gateways and schedulers, each with the real job store on simulated ground, and the real scheduler with its
// real claim loop, leases and steps. They are born, killed, stopped and drained by a schedule.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { JobStore, Lease } from "@moevie/job-store";
import { createLogger, openTracing, type Logger, type Metrics, type Tracing } from "@moevie/runtime";
import { startScheduler, type SchedulerParts } from "@moevie/scheduler/service";
import type { Books } from "./books.ts";
import { LEASE_MS, type Ground } from "./ground.ts";
import type { Mutation } from "./mutation.ts";
import type { Weather } from "./sim-link.ts";
import { simPeers } from "./sim-peers.ts";
import { SimProcess, type World } from "./world.ts";

const RENEW_MS = 160;
/** How long after it was told that a lease is lost a scheduler may begin a write with it. */
const TOLD_MS_MAX = 20;
/** After which the supervisor starts a process again that could not open its store. */
const REBIRTH_MS = 100;

const MODEL: SchedulerParts["model"] = {
  digest: "d1",
  frameRate: 8,
  latent: {
    channels: 1,
    temporalStride: 4,
    spatialStride: 16,
    patch: [1, 1],
    size: { height: 32, width: 32 },
    toRgb: [[0.5, 0, 0]],
    toRgbBias: [0, 0, 0],
  },
  windows: { frames: 3, overlap: 2, leadIn: 1, period: 4 },
  schedule: { shift: 3, grid: "diffusers" },
  sigmas: {},
};

interface Surroundings {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
}

const nothing = (): void => undefined;
const NO_METRICS = { add: nothing, set: nothing, observe: nothing, declare: nothing } as unknown as Metrics;

let surroundings: Promise<Surroundings> | undefined;

async function surround(): Promise<Surroundings> {
  return {
    log: await createLogger({ service: "sim", level: "silent", format: "json" }),
    metrics: NO_METRICS,
    tracing: await openTracing({ service: "sim", endpoint: "", sampleRatio: 0 }),
  };
}

export interface ClusterOptions {
  readonly world: World;
  readonly ground: Ground;
  readonly books: Books;
  readonly weather: () => Weather;
  readonly peerFailures: () => number;
  readonly previewSteps: number;
  readonly mutation: Mutation | undefined;
}

export interface Member {
  readonly process: SimProcess;
  /** Once it is open. */
  readonly store: Promise<JobStore>;
  readonly drain: AbortController;
}

export class SimCluster {
  readonly #of: ClusterOptions;
  readonly #around: Surroundings;
  readonly #births = new Map<string, number>();
  readonly members = new Map<string, Member>();
  readonly #drains: AbortController[] = [];

  private constructor(options: ClusterOptions, around: Surroundings) {
    this.#of = options;
    this.#around = around;
  }

  static async open(options: ClusterOptions): Promise<SimCluster> {
    return new SimCluster(options, await (surroundings ??= surround()));
  }

  /** A process of that name; one that was there is dead from now on. */
  bear(name: string): Member {
    this.members.get(name)?.process.kill();
    const { world, ground, weather, mutation, books } = this.#of;
    const birth = (this.#births.get(name) ?? 0) + 1;
    this.#births.set(name, birth);
    const process = new SimProcess(world, `${name} #${birth}`);
    const scene = { world, ground, process };
    const clock = mutation?.clock?.(scene) ?? process.clock;
    const store = ground.open(process, weather).then((real) => {
      const audible = heard(real, process, books);
      return mutation?.store?.(audible, scene) ?? audible;
    });
    const member = { process, store, drain: new AbortController() };
    this.members.set(name, member);
    this.#drains.push(member.drain);
    store.catch(() => {
      process.kill();
      world.after(REBIRTH_MS, () => this.members.get(name) === member && this.bear(name));
    });
    if (name.startsWith("scheduler")) void store.then((open) => this.#schedule(name, member, open, clock), nothing);
    world.tell(`${process.name} is born`);
    return member;
  }

  #schedule(owner: string, { process, drain }: Member, store: JobStore, clock: SimProcess["clock"]): void {
    const { log, metrics, tracing } = this.#around;
    const { peerFailures, previewSteps } = this.#of;
    const retry = { firstPauseMs: 20, pauseMsMax: 100, totalMsMax: 4000 };
    const settings = { owner, jobsRunningMax: 2, checkpointSteps: 2, checkpointShareMax: Infinity };
    startScheduler({
      store,
      model: MODEL,
      peers: simPeers(process, peerFailures),
      settings: { ...settings, previewSteps, referenceDir: "", retry, leaseMs: LEASE_MS, leaseRenewMs: RENEW_MS },
      log,
      metrics,
      tracing,
      clock,
      signal: drain.signal,
    });
  }

  /** Once all is looked at. Whoever waits for a signal is held by the runtime until it comes, the dead and their whole world with them. */
  end(): void {
    for (const drain of this.#drains) drain.abort(new MoevieError("DRAINING", "The schedule is over."));
  }

  /** As SIGTERM does. */
  drain(name: string): void {
    this.members.get(name)?.drain.abort(new MoevieError("DRAINING", "The service is going away."));
  }
}

function keyOf({ id, token }: Lease): string {
  return `${id}:${token}`;
}

/** The store as a scheduler has it, with an ear for two leases of one token and for owners that go on after they lost one. */
function heard(store: JobStore, process: SimProcess, books: Books): JobStore {
  const lost = new Map<string, { readonly atMs: number; readonly stops: number }>();
  const listen =
    <A extends unknown[], T>(what: string, call: (lease: Lease, ...rest: A) => Promise<T>) =>
    async (lease: Lease, ...rest: A): Promise<T> => {
      const told = lost.get(keyOf(lease));
      const { nowMs } = process.world;
      if (told !== undefined && told.stops === process.stops && nowMs - told.atMs > TOLD_MS_MAX)
        books.say(`${process.name} went on with ${books.nameOf(lease.id)} after it had lost it (${what})`);
      try {
        return await call(lease, ...rest);
      } catch (thrown) {
        if (asMoevieError(thrown).reason === "LEASE_LOST" && told === undefined)
          lost.set(keyOf(lease), { atMs: process.world.nowMs, stops: process.stops });
        throw thrown;
      }
    };
  return new Proxy(store, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      const method = value.bind(target) as (...args: never[]) => Promise<unknown>;
      if (name === "claimNext")
        return async (claim: Parameters<JobStore["claimNext"]>[0]) => {
          const lease = await target.claimNext(claim);
          if (lease !== null) books.claimed(lease, process);
          return lease;
        };
      return LEASED.has(String(name)) ? listen(String(name), method as (lease: Lease) => Promise<unknown>) : method;
    },
  });
}

const LEASED = new Set(["renew", "writeProgress", "appendEvent", "saveCheckpoint"]);
