// A process's way to the server: every message takes its time, may be lost, may come twice, and none comes while the way is cut.
import type { SimProcess, World } from "./world.ts";

export interface Weather {
  /** Of a message one way. */
  readonly lossProbability: number;
  readonly duplicateProbability: number;
  readonly slowProbability: number;
  readonly slowMsMax: number;
}

/** What the client waits for an answer. */
const CALL_MS_MAX = 300;
const DELAY_MS_MIN = 0.2;
const DELAY_MS_MAX = 2;

type StatusType = "disconnect" | "reconnect";

export class Link {
  readonly process: SimProcess;
  readonly #world: World;
  readonly #weather: () => Weather;
  readonly #statuses: ((type: StatusType) => void)[] = [];
  readonly #onCut: (() => void)[] = [];
  #cutUntilMs = 0;

  constructor(process: SimProcess, weather: () => Weather) {
    this.process = process;
    this.#world = process.world;
    this.#weather = weather;
  }

  get isCut(): boolean {
    return this.#cutUntilMs > this.#world.nowMs;
  }

  /** Nothing passes for so long; both ends notice. */
  cut(ms: number): void {
    const world = this.#world;
    const endMs = world.nowMs + ms;
    if (endMs <= this.#cutUntilMs) return;
    const wasCut = this.isCut;
    this.#cutUntilMs = endMs;
    if (!wasCut) this.#say("disconnect");
    for (const hear of this.#onCut.splice(0)) hear();
    world.after(ms, () => {
      if (!this.isCut) this.#say("reconnect");
    });
  }

  /** Called once at the next cut. */
  onCut(hear: () => void): void {
    this.#onCut.push(hear);
  }

  onStatus(hear: (type: StatusType) => void): void {
    this.#statuses.push(hear);
  }

  delayMs(): number {
    const world = this.#world;
    const { slowProbability, slowMsMax } = this.#weather();
    return world.between(DELAY_MS_MIN, world.chance(slowProbability) ? slowMsMax : DELAY_MS_MAX);
  }

  get isLost(): boolean {
    return this.isCut || this.#world.chance(this.#weather().lossProbability);
  }

  /** Asks the server: `work` runs there, perhaps later than the caller waits, perhaps twice, perhaps never. */
  call<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const world = this.#world;
      let isOver = false;
      const finish = (settle: () => void): void =>
        this.process.deliver(() => {
          if (isOver) return;
          isOver = true;
          timeout.isOff = true;
          settle();
        });
      const timeout = world.after(CALL_MS_MAX, () => finish(() => reject(new Error("timeout"))));
      // What is on its way goes on when its process dies; what a dead process would send does not.
      if (!this.process.alive || this.isLost) return;
      const copies = world.chance(this.#weather().duplicateProbability) ? 2 : 1;
      for (let copy = 0; copy < copies; copy++)
        world.after(this.delayMs(), () => {
          let settle: () => void;
          try {
            const value = work();
            settle = () => resolve(value);
          } catch (thrown) {
            settle = () => reject(thrown as Error);
          }
          if (!this.isLost) world.after(this.delayMs(), () => finish(settle));
        });
    });
  }

  #say(type: StatusType): void {
    this.process.deliver(() => this.#statuses.forEach((hear) => hear(type)));
  }
}
