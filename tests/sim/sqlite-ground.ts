// The SQLite store's ground: processes of one machine that share a file and a folder. A process may die in the middle of a write, somebody
// may hold the file, the disk may be full, and the power may go.
import type { JobStore } from "@moevie/job-store";
import { FileArtefacts, startSqliteStore } from "@moevie/job-store/parts";
import { LEASE_MS, type Change, type Forced, type Ground, type SeenJob, type Stage } from "./ground.ts";
import type { Mutation } from "./mutation.ts";
import { SimKeeper } from "./sim-keeper.ts";
import type { Weather } from "./sim-link.ts";
import { SimMachine } from "./sim-machine.ts";
import type { SimProcess, World } from "./world.ts";

const PIECE_MS_MIN = 0.05;
const PIECE_MS_MAX = 0.6;

export class SqliteGround implements Ground {
  readonly ordersExactly = true;
  readonly excuses = new Set<string>();
  onFault: (what: string) => void = () => undefined;
  readonly #world: World;
  readonly #machine: SimMachine;
  readonly #mutation: Mutation | undefined;
  #weather: () => Weather = () => ({ lossProbability: 0, duplicateProbability: 0, slowProbability: 0, slowMsMax: 0 });

  constructor(world: World, mutation: Mutation | undefined) {
    this.#world = world;
    this.#mutation = mutation;
    this.#machine = new SimMachine(world, () => this.#slowMs());
  }

  set onChange(hear: (change: Change) => void) {
    this.#machine.onChange = hear;
  }

  open(process: SimProcess, weather: () => Weather): Promise<JobStore> {
    this.#weather = weather;
    const machine = this.#machine;
    const scene = { world: this.#world, ground: this, process };
    const { clock, sqlite } = this.#mutation ?? {};
    const startKeeper = SimKeeper.starter({
      process,
      machine,
      slowMs: () => this.#slowMs(),
      clock: clock?.(scene) ?? process.clock,
      onFault: (what) => this.onFault(what),
      alter: (records) => sqlite?.(records, scene) ?? records,
    });
    return startSqliteStore({ startKeeper, artefacts: new FileArtefacts(machine.artefacts, machine.disk.of(process)) });
  }

  troubles(stage: Stage): readonly (() => void)[] {
    return [
      () => this.#dieInWrite(stage),
      () => this.#dieInWrite(stage),
      () => this.#hold(stage),
      () => this.#fill(),
      () => this.#cutPower(stage),
    ];
  }

  force(writer: SimProcess, id: string, forced: Forced): void {
    this.#machine.force(writer, id, forced);
  }

  clipSha256(id: string, token: number): string | undefined {
    return this.#machine.clipSha256(id, token);
  }

  eventsFault(id: string, { state }: SeenJob): string | undefined {
    const states = this.#machine.eventStates(id);
    const isSound = states[0] === "queued" && states.at(-1) === state.kind;
    return isSound ? undefined : `its events tell of ${states.join(" ")}, its record is ${state.kind}`;
  }

  leftOver(jobs: ReadonlyMap<string, SeenJob>): readonly string[] {
    const needed = new Set(
      [...jobs].flatMap(([id, { state }]) => (state.kind === "completed" ? [`/${id}/${state.token}.`] : [])),
    );
    return this.#machine.disk.paths.filter((path) => ![...needed].some((part) => path.includes(part)));
  }

  close(): void {
    this.#machine.close();
  }

  #slowMs(): number {
    const world = this.#world;
    const { slowProbability, slowMsMax } = this.#weather();
    return world.between(PIECE_MS_MIN, world.chance(slowProbability / 4) ? slowMsMax : PIECE_MS_MAX);
  }

  #dieInWrite({ world, victim, again }: Stage): void {
    const process = victim();
    const death = this.#machine.dieInWrite(process);
    world.tell(`${process.name} will die in its next write, ${death}`);
    again(process, world.between(10, 2 * LEASE_MS));
  }

  #hold({ world }: Stage): void {
    const ms = world.between(10, LEASE_MS);
    world.tell(`the file is held for ${ms.toFixed(0)} ms`);
    this.#machine.hold(ms);
  }

  #fill(): void {
    const world = this.#world;
    const ms = world.between(10, LEASE_MS);
    world.tell(`the disk is full for ${ms.toFixed(0)} ms`);
    this.excuses.add("DISK_FULL");
    this.#machine.disk.isFull = true;
    world.after(ms, () => (this.#machine.disk.isFull = false));
  }

  #cutPower({ world, processes, again }: Stage): void {
    world.tell("the power goes");
    for (const process of processes()) {
      process.kill();
      again(process, world.between(50, LEASE_MS));
    }
    this.#machine.disk.cutPower();
  }
}
