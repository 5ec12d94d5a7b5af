// What the shards hold and the routers count, asked for in turns. A shard that does not answer is suspect; only after a
// while it is gone, or when steps wait for what it had.
import { limit } from "@moevie/contracts";
import type { Holdings } from "@moevie/contracts";
import type { Placement, SlotAssignment } from "@moevie/placement";
import { isPeerThere, newPeers } from "@moevie/runtime";
import type { Logger, PeerAddress } from "@moevie/runtime";
import type { LoadWindow } from "./load-window.ts";
import { routerAddresses, routerLoads, routerMisses } from "./router-loads.ts";
import { ShardControl } from "./shard-control.ts";

export interface Member {
  /** Its place among the shards. */
  readonly index: number;
  readonly control: ShardControl;
  readonly holdings: Holdings;
}

/** All shards that are not gone answered, or `suspects` did not. */
export interface ClusterView {
  /** Those that leave are among them. */
  readonly members: readonly Member[];
  readonly suspects: readonly string[];
}

export interface ClusterViewOptions {
  readonly shards: readonly PeerAddress[];
  /** A name that stands for several machines is asked at each of them. */
  readonly routers: readonly string[];
  readonly digest: string;
  /** Milliseconds without an answer after which a shard is gone. */
  readonly goneMs: number;
  readonly loads: LoadWindow;
  readonly log: Pick<Logger, "warn">;
  /** Told of each shard that is gone for good. */
  readonly onForgotten?: (shard: number) => void;
}

interface Shard {
  readonly index: number;
  readonly address: string;
  readonly control: ShardControl;
  seenMs: number;
  /** It said so when it answered last: once it does not answer any more, it is gone. */
  leaving: boolean;
}

export class ClusterWatch {
  readonly #options: ClusterViewOptions;
  /** By index, those that are or were there. */
  readonly #shards = new Map<number, Shard>();

  constructor(options: ClusterViewOptions, nowMs: number) {
    this.#options = options;
    options.shards.forEach(({ numbered }, index) => {
      if (!numbered) this.#join(index, nowMs);
    });
  }

  /** Whether steps wait for an expert that no router reaches. Routers that do not answer have no say. */
  async isMissed(signal: AbortSignal): Promise<boolean> {
    const routers = await routerAddresses(this.#options.routers);
    const answers = await Promise.allSettled(routers.map((address) => routerMisses(address, signal)));
    const [first, ...others] = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
    if (first === undefined || first.waiting + others.reduce((sum, { waiting }) => sum + waiting, 0) === 0)
      return false;
    return [...first.missing].some((expert) => others.every(({ missing }) => missing.has(expert)));
  }

  /** Asks everybody once. `nowMs` never goes back. While an expert `isMissed`, a shard that does not answer is gone at once. */
  async look(nowMs: number, signal: AbortSignal, isMissed: boolean): Promise<ClusterView> {
    const { digest, goneMs, loads, log, shards } = this.#options;
    const [joined, routers] = await Promise.all([
      newPeers(shards, new Set(this.#shards.keys())),
      routerAddresses(this.#options.routers),
    ]);
    for (const index of joined) this.#join(index, nowMs);
    const known = [...this.#shards.values()].sort((a, b) => a.index - b.index);
    const [held, counted] = await Promise.all([
      Promise.allSettled(known.map(({ control }) => control.holdings(signal))),
      Promise.allSettled(routers.map((address) => routerLoads(address, signal))),
    ]);
    counted.forEach((answer, at) => {
      const router = routers[at] ?? "";
      if (answer.status === "fulfilled") loads.add(router, answer.value, nowMs);
      else log.warn({ router, err: answer.reason as unknown }, "a router has no loads");
    });
    const members: Member[] = [];
    const suspects: string[] = [];
    held.forEach((answer, at) => {
      const shard = known[at];
      if (shard === undefined) return;
      const { address, control, index } = shard;
      if (answer.status === "fulfilled") {
        shard.seenMs = nowMs;
        shard.leaving = answer.value.leaving;
        if (answer.value.bundleDigest === digest) members.push({ index, control, holdings: answer.value });
        else log.warn({ address, digest: answer.value.bundleDigest }, "a shard serves another bundle");
      } else if (!isMissed && !shard.leaving && nowMs - shard.seenMs < goneMs) suspects.push(address);
    });
    await this.#forgetGone(nowMs);
    return { members, suspects };
  }

  /** Whoever was scaled down is not asked for ever. */
  async #forgetGone(nowMs: number): Promise<void> {
    for (const [index, { address, control, seenMs }] of this.#shards) {
      const numbered = this.#options.shards[index]?.numbered === true;
      if (!numbered || nowMs - seenMs < limit("shardAwayMsMax") || (await isPeerThere(address))) continue;
      control.close();
      this.#shards.delete(index);
      this.#options.onForgotten?.(index);
    }
  }

  close(): void {
    for (const { control } of this.#shards.values()) control.close();
  }

  #join(index: number, seenMs: number): void {
    const address = this.#options.shards[index]?.address ?? "";
    this.#shards.set(index, { index, address, control: new ShardControl(address), seenMs, leaving: false });
  }
}

/** The members that are to hold experts. */
export function staying({ members }: ClusterView): readonly Member[] {
  return members.filter(({ holdings }) => !holdings.leaving);
}

/** What the members hold, as a placement; its epoch is the newest of theirs. */
export function heldPlacement(members: readonly Member[]): Placement {
  return {
    epoch: Math.max(1, ...members.map(({ holdings }) => holdings.epoch)),
    shards: members.map(({ holdings }) => ({
      slots: holdings.experts.map(({ layer, expert }): SlotAssignment => [layer, expert]),
    })),
  };
}
