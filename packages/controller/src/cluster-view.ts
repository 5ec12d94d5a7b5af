// What the shards hold and the routers count, asked for in turns. A shard that does not answer is suspect; only after a
// while it is gone, or when steps wait for what it had.
import type { Holdings } from "@moevie/contracts";
import type { Placement, SlotAssignment } from "@moevie/placement";
import type { Logger } from "@moevie/runtime";
import type { LoadWindow } from "./load-window.ts";
import { routerLoads, routerMisses } from "./router-loads.ts";
import { ShardControl } from "./shard-control.ts";

export interface Member {
  /** Its place among the shards. */
  readonly index: number;
  readonly control: ShardControl;
  readonly holdings: Holdings;
}

/** All shards that are not gone answered, or `suspects` did not. */
export interface ClusterView {
  readonly members: readonly Member[];
  readonly suspects: readonly string[];
}

export interface ClusterViewOptions {
  readonly shards: readonly string[];
  readonly routers: readonly string[];
  readonly digest: string;
  /** Milliseconds without an answer after which a shard is gone. */
  readonly goneMs: number;
  readonly loads: LoadWindow;
  readonly log: Pick<Logger, "warn">;
}

export class ClusterWatch {
  readonly #options: ClusterViewOptions;
  readonly #shards: readonly { readonly address: string; readonly control: ShardControl; seenMs: number }[];

  constructor(options: ClusterViewOptions, nowMs: number) {
    this.#options = options;
    this.#shards = options.shards.map((address) => ({ address, control: new ShardControl(address), seenMs: nowMs }));
  }

  /** Whether steps wait for an expert that no router reaches. Routers that do not answer have no say. */
  async isMissed(signal: AbortSignal): Promise<boolean> {
    const answers = await Promise.allSettled(this.#options.routers.map((address) => routerMisses(address, signal)));
    const [first, ...others] = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
    if (first === undefined || first.waiting + others.reduce((sum, { waiting }) => sum + waiting, 0) === 0)
      return false;
    return [...first.missing].some((expert) => others.every(({ missing }) => missing.has(expert)));
  }

  /** Asks everybody once. `nowMs` never goes back. While an expert `isMissed`, a shard that does not answer is gone at once. */
  async look(nowMs: number, signal: AbortSignal, isMissed: boolean): Promise<ClusterView> {
    const { digest, goneMs, loads, log, routers } = this.#options;
    const [held, counted] = await Promise.all([
      Promise.allSettled(this.#shards.map(({ control }) => control.holdings(signal))),
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
      const shard = this.#shards[at];
      if (shard === undefined) return;
      const { address, control } = shard;
      if (answer.status === "fulfilled") {
        shard.seenMs = nowMs;
        if (answer.value.bundleDigest === digest) members.push({ index: at, control, holdings: answer.value });
        else log.warn({ address, digest: answer.value.bundleDigest }, "a shard serves another bundle");
      } else if (!isMissed && nowMs - shard.seenMs < goneMs) suspects.push(address);
    });
    return { members, suspects };
  }

  close(): void {
    for (const { control } of this.#shards) control.close();
  }
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
