// What shards did not load: a plan asks them for less until their memory allows more, or some minutes have passed. Without it the same plan
// would be made, and refused, again and again. Pure; the caller says what time it is.
import { ERRORS } from "@moevie/contracts";
import type { Holdings, MoevieError } from "@moevie/contracts";
import type { RebalanceFailure } from "./rebalance.ts";

/** After so long a shard is asked again, whatever it says of its memory; and not earlier, though what is free comes and goes. */
const [REMEMBERED_MS, REMEMBERED_MS_MIN] = [300_000, 5000];

interface Refusal {
  readonly layer: number;
  /** Experts of the layer it was told to hold. */
  readonly asked: number;
  /** The most of a layer that it has room to load. */
  readonly room: number;
  readonly error: MoevieError;
  readonly atMs: number;
  /** As the shard said then. */
  readonly slots: number;
  readonly fence: number;
}

/** As HTTP /plan shows it. */
export interface ShownRefusal {
  readonly shard: number;
  readonly layer: number;
  readonly asked: number;
  readonly room: number;
  readonly why: string;
  readonly ageMs: number;
}

interface Asked {
  /** Its place among the shards. */
  readonly index: number;
  readonly holdings: Pick<Holdings, "experts" | "fence" | "freeBytes">;
}

export class Refusals {
  readonly #loadsWhole: boolean;
  /** By the shard's place, the last of each. */
  readonly #refusals = new Map<number, Refusal>();

  /** `loadsWhole`: the experts of a layer are loaded anew together, those that stay too; else only those that come. */
  constructor(loadsWhole: boolean) {
    this.#loadsWhole = loadsWhole;
  }

  /** Whether the shard will not take the same the next time either. What passes by itself is not kept. `fence` is that of the change. */
  add({ index, holdings }: Asked, failure: RebalanceFailure, fence: number, nowMs: number): boolean {
    const { error, layer, asked, held } = failure;
    if (ERRORS[error.reason].retry || error.reason === "CANCELLED") return false;
    const room = this.#roomAfter(failure);
    const slots = holdings.experts.length;
    this.#refusals.set(index, { layer, asked: asked.length, room, error, atMs: nowMs, slots, fence });
    return asked.length > held.length;
  }

  /** What shards say now: one that was started again, or has room for what it refused, may be asked again. */
  look(shards: readonly Asked[], nowMs: number): void {
    for (const [index, { error, atMs, slots, fence }] of this.#refusals) {
      const now = shards.find((shard) => shard.index === index)?.holdings;
      const isOther = now !== undefined && now.fence < fence;
      const hasRoom =
        now !== undefined &&
        nowMs - atMs >= REMEMBERED_MS_MIN &&
        (error.memory === undefined ? now.experts.length < slots : now.freeBytes >= error.memory.neededBytes);
      if (isOther || hasRoom || nowMs - atMs >= REMEMBERED_MS) this.#refusals.delete(index);
    }
  }

  /** The most experts of a layer that the shard has room to load; undefined where it has refused nothing lately. */
  room(index: number): number | undefined {
    return this.#refusals.get(index)?.room;
  }

  shown(nowMs: number): readonly ShownRefusal[] {
    return Array.from(this.#refusals, ([shard, { layer, asked, room, error, atMs }]) => ({
      shard,
      layer,
      asked,
      room,
      why: error.message,
      ageMs: Math.round(nowMs - atMs),
    })).sort((a, b) => a.shard - b.shard);
  }

  /** Of what it has bytes for; half as many more where it did not name them; none more where memory is not what it lacks. */
  #roomAfter({ error, asked, held }: RebalanceFailure): number {
    if (error.reason !== "OUT_OF_MEMORY") return 0;
    const staying = asked.filter((expert) => held.includes(expert)).length;
    const { neededBytes, freeBytes } = error.memory ?? { neededBytes: 2, freeBytes: 1 };
    const share = (experts: number): number => Math.floor((experts * freeBytes) / neededBytes);
    const isWhole = this.#loadsWhole && error.memory !== undefined;
    const most = isWhole ? share(asked.length) : staying + share(asked.length - staying);
    return Math.min(asked.length - 1, most);
  }
}
