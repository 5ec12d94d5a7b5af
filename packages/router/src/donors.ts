// Steps that wait for an expert no connected shard holds: for a while its shard may come back, then others are asked to load what is
// missing, by a rule that finds the same donors everywhere. Where a controller leads it is told, and asks them itself.
import { asMoevieError, limit } from "@moevie/contracts";
import { NO_HOLDER, chooseDonors } from "@moevie/placement";
import type { SlotAssignment } from "@moevie/placement";
import { pause } from "@moevie/runtime";
import type { Logger, Metrics } from "@moevie/runtime";
import { DonorShard } from "./donor-shard.ts";
import type { ShardLinks } from "./shard-links.ts";

/** After a shard refused a layer it is asked for it again, twice as long later each time. */
const REFUSED_MS_MIN = 1000;
const REFUSED_MS_MAX = 60_000;
/** Between two times that donors are looked for, and not longer after a shard was lost. */
const ROUND_MS = 1000;

export interface DonorsOptions {
  readonly links: ShardLinks;
  /** Milliseconds in which a shard that was lost may come back. */
  readonly afterMs: number;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics: Metrics;
}

export interface MissingExperts {
  /** What no connected shard has held for so long that it is to be loaded elsewhere. */
  readonly missing: readonly SlotAssignment[];
  /** Steps that wait for one. */
  readonly waiting: number;
}

export class Donors {
  readonly #options: DonorsOptions;
  readonly #closing = new AbortController();
  #waiting = 0;
  #isLooking = false;
  /** By layer, why no donor took it the last time. */
  readonly #refusals = new Map<number, string>();
  /** By "shard.layer", until when it is not asked again. */
  readonly #refusedUntil = new Map<string, { readonly untilMs: number; readonly waitMs: number }>();
  /** When a leading controller asked last. */
  #askedMs = -Infinity;

  constructor(options: DonorsOptions) {
    this.#options = options;
    const outcomes = ["done", "refused"].map((outcome) => ({ outcome }));
    options.metrics.declare("moevie_donor_loads_total", outcomes);
  }

  /** Returns at the next change of what shards hold. Throws CANCELLED on the signal, EXPERT_MISSING with `text` and what donors said at `endMs`. */
  async wait(signal: AbortSignal, endMs: number, layer: number, text: string): Promise<void> {
    this.#waiting++;
    if (!this.#isLooking) void this.#look();
    try {
      await this.#options.links.waitForChange(signal, endMs, () => `${text}${this.#refusals.get(layer) ?? ""}`);
    } finally {
      this.#waiting--;
    }
  }

  /** What steps miss. While a leading controller asks, donors are its to choose. */
  missing(nowMs: number, isLed: boolean): MissingExperts {
    if (isLed) this.#askedMs = nowMs;
    return { missing: this.#isDue(nowMs) ? this.#options.links.missing() : [], waiting: this.#waiting };
  }

  /** The shard is gone for good. */
  forget(shard: number): void {
    for (const key of this.#refusedUntil.keys()) if (key.startsWith(`${shard}.`)) this.#refusedUntil.delete(key);
  }

  close(): void {
    this.#closing.abort();
  }

  #isDue(nowMs: number): boolean {
    return nowMs - (this.#options.links.missingSinceMs ?? nowMs) >= this.#options.afterMs;
  }

  /** Round after round while steps wait. */
  async #look(): Promise<void> {
    const { afterMs, links, log } = this.#options;
    const { signal } = this.#closing;
    this.#isLooking = true;
    this.#refusals.clear();
    try {
      while (this.#waiting > 0) {
        const nowMs = performance.now();
        const isLed = nowMs - this.#askedMs < limit("leaseMs");
        if (this.#isDue(nowMs) && !isLed) await this.#round();
        const sinceMs = performance.now() - (links.missingSinceMs ?? nowMs);
        await pause(sinceMs < afterMs ? Math.min(ROUND_MS, afterMs - sinceMs) : ROUND_MS, signal);
      }
    } catch (thrown) {
      const error = asMoevieError(thrown);
      if (!signal.aborted) log.warn({ reason: error.reason, err: error.cause }, error.message);
    }
    this.#isLooking = false;
  }

  /** Layer after layer, each from as many donors at once as the rule gives. */
  async #round(): Promise<void> {
    const { links } = this.#options;
    const shards = links
      .held()
      .map(({ address, ready }) => (ready ? new DonorShard(address, this.#closing.signal) : undefined));
    const missing = Map.groupBy(links.missing(), ([layer]) => layer);
    try {
      for (const [layer, slots] of missing) {
        const experts = slots.map(([, expert]) => expert);
        const nowMs = performance.now();
        const askable = shards.map((shard, at) =>
          nowMs < (this.#refusedUntil.get(`${at}.${layer}`)?.untilMs ?? 0) ? undefined : shard,
        );
        await this.#give(layer, experts, askable);
      }
    } finally {
      for (const shard of shards) shard?.close();
    }
  }

  /** What a shard refuses goes to those that did not; `shards` loses it. */
  async #give(layer: number, experts: readonly number[], shards: (DonorShard | undefined)[]): Promise<void> {
    const { links, log, metrics } = this.#options;
    const slotsOf = (at: number): number => links.held()[at]?.slots.filter(([of]) => of === layer).length ?? 0;
    const why: string[] = [];
    for (let open = experts; open.length > 0;) {
      const donors = chooseDonors(
        open,
        shards.map((shard, at) => (shard === undefined ? undefined : slotsOf(at))),
      );
      const asked = Map.groupBy(open.keys(), (at) => donors[at] ?? NO_HOLDER);
      asked.delete(NO_HOLDER);
      if (asked.size === 0) break;
      const given = await Promise.all(
        [...asked].map(async ([donor, ats]): Promise<readonly number[]> => {
          const list = ats.map((at) => open[at] ?? 0);
          try {
            await shards[donor]?.load(layer, list);
            metrics.add("moevie_donor_loads_total", { outcome: "done" });
            this.#refusedUntil.delete(`${donor}.${layer}`);
            log.info({ shard: donor, layer, experts: list }, "a donor holds experts that nobody held");
            return list;
          } catch (thrown) {
            const { message, reason } = asMoevieError(thrown);
            metrics.add("moevie_donor_loads_total", { outcome: "refused" });
            why.push(` Shard ${donor} did not load it: ${message}`);
            if (!this.#refusals.has(layer)) log.warn({ shard: donor, layer, experts: list, reason }, message);
            shards[donor] = undefined;
            const key = `${donor}.${layer}`;
            const waitMs = Math.min(REFUSED_MS_MAX, 2 * (this.#refusedUntil.get(key)?.waitMs ?? REFUSED_MS_MIN / 2));
            this.#refusedUntil.set(key, { untilMs: performance.now() + waitMs, waitMs });
            return [];
          }
        }),
      );
      open = open.filter((expert) => !given.flat().includes(expert));
    }
    if (why.length > 0) this.#refusals.set(layer, why.sort().join(""));
  }
}
