// One schedule: a cluster, its clients and their troubles, all from one seed, until every job ended and everything is calm; then the audit.
import { asMoevieError, limit } from "@moevie/contracts";
import type { JobSpec, JobStore } from "@moevie/job-store";
import { Books } from "./books.ts";
import { LEASE_MS, type Ground, type SeenJob, type StoreKind } from "./ground.ts";
import type { Mutation } from "./mutation.ts";
import { NatsGround } from "./nats-ground.ts";
import { SimCluster } from "./sim-cluster.ts";
import type { Weather } from "./sim-link.ts";
import { SqliteGround } from "./sqlite-ground.ts";
import { World, type SimProcess } from "./world.ts";

/** Steps of the kinds of jobs: the last outlives what a lost lease may still say. */
const KIND_STEPS = [2, 3, 5, 24] as const;
const TROUBLE_MS = 3500;
const END_MS = 90_000;
const AFTERMATH_MS = 400;
/** In which a process that opened the store removes what is left over. */
const TIDY_MS = 100;
const TENANTS = ["one", "two", "three"] as const;
const CLIENT_MS_MAX = 1500;
const HOUR_MS = 3_600_000;
const CALM: Weather = { lossProbability: 0, duplicateProbability: 0, slowProbability: 0, slowMsMax: 0 };

export interface ScheduleOptions {
  readonly store: StoreKind;
  readonly seed: number;
  readonly mutation?: Mutation;
  /** Nothing goes wrong. */
  readonly calm?: boolean;
  readonly traced?: boolean;
}

export interface ScheduleReport {
  readonly violations: readonly string[];
  readonly trace: readonly string[];
  readonly virtualMs: number;
  readonly jobs: number;
  readonly troubles: number;
}

// Errors are thrown by the thousand here, and nobody reads where.
Error.stackTraceLimit = 0;

/** Kind → sha256 of the clip that a calm run gives. */
const expected = new Map<number, string>();

const GROUNDS = { sqlite: SqliteGround, nats: NatsGround } as const;

export async function runSchedule(options: ScheduleOptions): Promise<ScheduleReport> {
  if (expected.size === 0 && options.calm !== true) await learn(options.store);
  const world = new World(options.seed, options.traced ?? false);
  const ground = new GROUNDS[options.store](world, options.mutation);
  const books = new Books(world, ground, {
    leaseMs: LEASE_MS,
    attemptsMax: limit("jobAttemptsMax"),
    expectedSha256: ({ spec }) => expected.get(spec.seed),
  });
  const scene = new Scene(world, books, options);
  const isBroken = (): boolean => books.violations.length > 0;
  await scene.open(ground);
  await world.run(END_MS, () => isBroken() || (scene.isCalm && [...books.jobs.values()].every(isEnded)));
  await world.run(world.nowMs + AFTERMATH_MS, isBroken);
  scene.beginAnew();
  await world.run(world.nowMs + TIDY_MS, isBroken);
  if (!isBroken()) books.audit(scene.asked);
  scene.end();
  ground.close();
  if (options.calm === true) for (const job of books.jobs.values()) remember(job);
  return {
    violations: books.violations,
    trace: world.trace ?? [],
    virtualMs: world.nowMs,
    jobs: books.accounts.size,
    troubles: scene.troubles,
  };
}

async function learn(store: StoreKind): Promise<void> {
  const { violations } = await runSchedule({ seed: 0, store, calm: true });
  if (violations.length > 0 || expected.size < KIND_STEPS.length)
    throw new Error(`a calm run is not sound: ${violations.join("; ")}`);
}

function remember({ spec, state }: SeenJob): void {
  if (state.kind === "completed") expected.set(spec.seed, state.artefact.sha256);
}

function isEnded({ state }: SeenJob): boolean {
  return state.kind !== "queued" && state.kind !== "running";
}

function specOf(kind: number): JobSpec {
  return {
    prompt: `kind ${kind}`,
    negativePrompt: "",
    seed: kind,
    width: 32,
    height: 32,
    seconds: 0.5,
    fps: 8,
    quality: "standard",
    colorCorrection: true,
    steps: KIND_STEPS[kind] ?? 2,
    guidance: 1,
    sampler: "unipc",
    model: "tiny",
  };
}

class Scene {
  readonly asked = new Map<string, string | undefined>();
  troubles = 0;
  readonly #world: World;
  readonly #books: Books;
  readonly #options: ScheduleOptions;
  readonly #schedulers: readonly string[];
  #cluster: SimCluster | undefined;
  #weather: Weather = CALM;
  #peerFailures = 0;
  #busy = 0;

  constructor(world: World, books: Books, options: ScheduleOptions) {
    this.#world = world;
    this.#books = books;
    this.#options = options;
    this.#schedulers = ["scheduler a", "scheduler b", "scheduler c"].slice(
      0,
      options.calm === true ? 1 : this.#pick(2, 3),
    );
  }

  /** No client waits and no trouble is to come. */
  get isCalm(): boolean {
    return this.#busy === 0;
  }

  async open(ground: Ground): Promise<void> {
    const world = this.#world;
    const { calm = false, mutation } = this.#options;
    const stormy = {
      lossProbability: world.between(0, 0.03),
      duplicateProbability: world.between(0, 0.02),
      slowProbability: world.between(0, 0.05),
      slowMsMax: world.between(10, 400),
    };
    if (!calm) [this.#weather, this.#peerFailures] = [stormy, world.between(0, 0.03)];
    this.#cluster = await SimCluster.open({
      world,
      ground,
      books: this.#books,
      weather: () => this.#weather,
      peerFailures: () => this.#peerFailures,
      previewSteps: world.chance(0.03) ? 3 : 0,
      mutation,
    });
    for (const name of ["gateway", ...this.#schedulers]) this.#cluster.bear(name);
    const jobs = calm ? KIND_STEPS.length : this.#pick(3, 7);
    for (let number = 0; number < jobs; number++) this.#begin(this.#client(number, calm ? number : this.#kind()));
    if (!calm) this.#begin(this.#trouble(ground));
  }

  /** All processes are gone and one comes back. */
  beginAnew(): void {
    for (const { process } of this.#cluster!.members.values()) process.kill();
    this.#cluster!.bear("gateway");
  }

  end(): void {
    this.#cluster?.end();
  }

  #begin(work: Promise<void>): void {
    this.#busy += 1;
    void work.then(() => (this.#busy -= 1));
  }

  #pick(low: number, high: number): number {
    return low + Math.floor(this.#world.random() * (high - low + 1));
  }

  /** The long one is rare: it takes the time of all others together. */
  #kind(): number {
    return this.#world.chance(0.1) ? KIND_STEPS.length - 1 : this.#pick(0, KIND_STEPS.length - 2);
  }

  async #client(number: number, kind: number): Promise<void> {
    const world = this.#world;
    const request = `request ${number}`;
    this.asked.set(request, undefined);
    await world.wait(world.between(0, TROUBLE_MS / 2));
    const tenant = TENANTS[this.#pick(0, TENANTS.length - 1)] ?? "one";
    const options = { tenant, requestId: request, requestDigest: "same", bundleDigest: "d1" };
    const { id } = await this.#insist((store) => store.submit(specOf(kind), options));
    this.asked.set(request, id);
    if (this.#options.calm === true || !world.chance(0.2)) return;
    await world.wait(world.between(0, 1500));
    if (world.chance(0.6)) return void (await this.#insist((store) => store.requestCancel(id)));
    await this.#insist((store) => store.delete(id));
  }

  /** As a client does: again, at whatever gateway there is, until there is an answer. */
  async #insist<T>(ask: (store: JobStore) => Promise<T>): Promise<T | Extract<T, { id: string }>> {
    for (;;) {
      const asked = this.#cluster!.members.get("gateway")!.store.then(ask);
      const answer = asked.then(
        (value) => ({ value }),
        (thrown: unknown) => ({ gone: asMoevieError(thrown).reason === "VIDEO_NOT_FOUND" }),
      );
      const first = await Promise.race([answer, this.#world.wait(CLIENT_MS_MAX)]);
      if (first !== undefined && "value" in first) return first.value;
      if (first !== undefined && first.gone) return undefined as T;
      await this.#world.wait(50);
    }
  }

  async #trouble(ground: Ground): Promise<void> {
    const world = this.#world;
    const kinds = [
      () => this.#kill(),
      () => this.#kill(),
      () => this.#stop(),
      () => this.#stopInWrite(),
      () => this.#drain(),
      () => this.#jump(),
      ...ground.troubles({
        world,
        processes: () => [...this.#cluster!.members.values()].map(({ process }) => process),
        victim: () => this.#victim(),
        again: (process, afterMs) => this.#again(process, afterMs),
      }),
    ];
    const pauseMs = world.between(100, 1000);
    while (world.nowMs < TROUBLE_MS) {
      await world.wait(world.between(0, 2 * pauseMs));
      this.troubles += 1;
      kinds[this.#pick(0, kinds.length - 1)]?.();
    }
    this.#weather = CALM;
    this.#peerFailures = 0;
    await world.wait(LEASE_MS);
  }

  #victim(): SimProcess {
    const names = ["gateway", ...this.#schedulers];
    return this.#cluster!.members.get(names[this.#pick(0, names.length - 1)] ?? "gateway")!.process;
  }

  #kill(): void {
    const world = this.#world;
    const process = this.#victim();
    world.tell(`${process.name} is killed`);
    process.kill();
    this.#again(process, world.between(10, 2 * LEASE_MS));
  }

  #again(dead: SimProcess, afterMs: number): void {
    this.#world.after(afterMs, () => {
      for (const [name, { process }] of this.#cluster!.members) if (process === dead) this.#cluster!.bear(name);
    });
  }

  #stopInWrite(): void {
    const world = this.#world;
    const { process } = this.#cluster!.members.get(this.#scheduler())!;
    const [writes, ms] = [this.#pick(0, 3), world.between(LEASE_MS, 3 * LEASE_MS)];
    world.tell(`${process.name} will be stopped for ${ms.toFixed(0)} ms in the file it writes after ${writes} more`);
    process.stopInWrite(writes, ms);
  }

  #scheduler(): string {
    return this.#schedulers[this.#pick(0, this.#schedulers.length - 1)] ?? "";
  }

  #stop(): void {
    const world = this.#world;
    const process = this.#victim();
    const ms = world.between(50, 3 * LEASE_MS);
    world.tell(`${process.name} is stopped for ${ms.toFixed(0)} ms`);
    process.stop(ms);
  }

  #drain(): void {
    const name = this.#scheduler();
    this.#world.tell(`${name} drains`);
    this.#cluster!.drain(name);
    this.#again(this.#cluster!.members.get(name)!.process, this.#world.between(100, LEASE_MS));
  }

  #jump(): void {
    const process = this.#victim();
    process.skewMs += this.#world.chance(0.5) ? HOUR_MS : -HOUR_MS;
    this.#world.tell(`the wall clock of ${process.name} jumps by an hour`);
  }
}
