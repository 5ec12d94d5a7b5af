// The router's shards: a stream to each, what they hold, who may serve which expert of a layer just now, and how busy each is with this router.
import { MoevieError, limit } from "@moevie/contracts";
import { connectExchange } from "@moevie/fabric";
import type { ExchangeClient, ExchangePath } from "@moevie/fabric";
import { holdersOf, uncovered } from "@moevie/placement";
import type { ModelExperts, ShardPlacement } from "@moevie/placement";
import { isPeerThere, newPeers, pause } from "@moevie/runtime";
import type { Logger, Metrics, PeerAddress } from "@moevie/runtime";

export interface ShardLinksOptions {
  /** The place of each is its number. Numbered ones are called once they are there. */
  readonly addresses: readonly PeerAddress[];
  /** Shards of another bundle are not used. */
  readonly digest: string;
  readonly model: ModelExperts;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics: Metrics;
  /** Folder of memory for rows to shards of this host; without it they go by the socket. */
  readonly segmentFolder?: string | undefined;
  /** Milliseconds after which a numbered shard that went away, and is not there any more, is forgotten. */
  readonly forgetMs?: number;
  /** Told of each that is. */
  readonly onForgotten?: (shard: number) => void;
}

const PATHS: readonly ExchangePath[] = ["tcp", "unix", "segment"];

/** Shards by expert, [experts][any]. */
export type Holders = readonly (readonly number[])[];

export class ShardLinks {
  /** By number; those that are not there yet are left out. */
  readonly clients: (ExchangeClient | undefined)[] = [];
  readonly #options: ShardLinksOptions;
  #shards: ShardPlacement[] = [];
  #ready: boolean[] = [];
  readonly #holders = new Map<number, Holders>();
  /** Whether each shard is on this host: what it listens on is a socket file. */
  readonly sameHost: readonly boolean[];
  /** Rows this router has at each shard. */
  readonly rowsInFlight: Uint32Array;
  /** performance.now() since when connected shards do not hold everything. */
  missingSinceMs: number | undefined;
  /** performance.now() since when there is no connection, by number. */
  readonly #awaySinceMs = new Map<number, number>();
  readonly #noSegmentTold = new Set<number>();
  #changed = Promise.withResolvers<void>();
  readonly #closing = new AbortController();

  constructor(options: ShardLinksOptions) {
    this.#options = options;
    this.sameHost = options.addresses.map(({ address }) => address.startsWith("unix:"));
    this.rowsInFlight = new Uint32Array(options.addresses.length);
    options.addresses.forEach(({ numbered }, index) => {
      if (!numbered) this.#join(index);
    });
    this.#refresh();
    if (options.addresses.some(({ numbered }) => numbered)) void this.#watch();
  }

  /** Experts, as [layer, expert], which no connected shard holds. */
  missing(): readonly (readonly [number, number])[] {
    return uncovered(
      this.#shards.filter((_, index) => this.#ready[index]),
      this.#options.model,
    );
  }

  /** Experts of a layer. */
  get experts(): number {
    return this.#options.model.experts;
  }

  /** Every shard, whether it may be used, and what it says it holds. */
  held(): readonly {
    readonly address: string;
    readonly ready: boolean;
    readonly path: ExchangePath | undefined;
    readonly slots: ShardPlacement["slots"];
  }[] {
    return this.clients.map((_, index) => ({
      address: this.#options.addresses[index]?.address ?? "",
      ready: this.#ready[index] === true,
      path: this.clients[index]?.path,
      slots: this.#shards[index]?.slots ?? [],
    }));
  }

  /** Newest placement epoch a connected shard has. */
  get epoch(): number {
    return Math.max(0, ...this.clients.map((client) => client?.holds()?.epoch ?? 0));
  }

  /** The usable shards that hold each expert of the layer, ascending; `avoided` shards are left out. */
  holders(layer: number, avoided: ReadonlySet<number>): Holders {
    const { experts } = this.#options.model;
    if (avoided.size > 0) {
      const ready = this.#ready.map((value, index) => value && !avoided.has(index));
      return holdersOf(this.#shards, ready, layer, experts);
    }
    const known = this.#holders.get(layer) ?? holdersOf(this.#shards, this.#ready, layer, experts);
    this.#holders.set(layer, known);
    return known;
  }

  /** Every usable shard that holds the expert, ascending. */
  replicas(layer: number, expert: number): readonly number[] {
    return this.holders(layer, new Set())[expert] ?? [];
  }

  /** As change, bounded: throws CANCELLED on the signal and EXPERT_MISSING with `missing()` when performance.now() passes `endMs`. */
  async waitForChange(signal: AbortSignal, endMs: number, missing: () => string): Promise<void> {
    const timeout = AbortSignal.timeout(Math.max(1, Math.ceil(endMs - performance.now())));
    try {
      await this.change(AbortSignal.any([timeout, signal]));
    } catch {
      if (signal.aborted) throw new MoevieError("CANCELLED", "The call was cancelled.");
      throw new MoevieError("EXPERT_MISSING", missing());
    }
  }

  /** Resolves at the next change of what the shards hold, or rejects with the signal's reason. */
  change(signal: AbortSignal): Promise<void> {
    const { promise } = this.#changed;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason as Error);
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      void promise.then(() => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      });
    });
  }

  close(): void {
    this.#closing.abort();
    for (const client of this.clients) client?.close();
  }

  /** How many shards there are, whether they may be used or not. */
  get present(): number {
    return this.clients.filter((client) => client !== undefined).length;
  }

  #join(index: number): void {
    const { addresses, metrics, log } = this.#options;
    const { address = "", numbered = false } = addresses[index] ?? {};
    const labels = { shard: String(index) };
    metrics.declare("moevie_exchange_late_answers_total", [labels]);
    const outcomes = ["won", "lost"].map((outcome) => ({ ...labels, outcome }));
    metrics.declare("moevie_exchange_hedges_total", outcomes);
    if (numbered) log.info({ shard: labels.shard, address }, "shard joined");
    while (this.clients.length < index) this.clients.push(undefined);
    this.clients[index] = connectExchange(address, {
      onChange: () => this.#refresh(),
      segmentFolder: this.#options.segmentFolder,
      onNoSegment: (why) => this.#noSegment(index, why),
      onLateAnswer: () => metrics.add("moevie_exchange_late_answers_total", labels),
    });
  }

  /** Looks for shards that joined, and for those that are gone, until this is closed. */
  async #watch(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const known = new Set(this.clients.flatMap((client, index) => (client === undefined ? [] : [index])));
      const found = await newPeers(this.#options.addresses, known);
      if (signal.aborted) return;
      for (const index of found) this.#join(index);
      if (found.length > 0) this.#refresh();
      await this.#forgetGone();
      await pause(limit("peerLookMs"), signal).catch(() => undefined);
    }
  }

  /** One that was there may come back for a while, and for as long as its name or its socket stands for somebody. */
  async #forgetGone(): Promise<void> {
    const { addresses, forgetMs = limit("shardAwayMsMax") } = this.#options;
    for (const [index, sinceMs] of this.#awaySinceMs) {
      const { address = "", numbered = false } = addresses[index] ?? {};
      if (!numbered || performance.now() - sinceMs < forgetMs || (await isPeerThere(address))) continue;
      if (!this.#closing.signal.aborted && this.#awaySinceMs.has(index)) this.#forget(index);
    }
  }

  #forget(index: number): void {
    const { log, metrics, onForgotten } = this.#options;
    const client = this.clients[index];
    this.clients[index] = undefined;
    while (this.clients.length > 0 && this.clients.at(-1) === undefined) this.clients.pop();
    client?.close();
    this.#awaySinceMs.delete(index);
    this.#noSegmentTold.delete(index);
    const shard = String(index);
    metrics.forget("shard", shard);
    onForgotten?.(index);
    log.info({ shard }, "shard forgotten");
    this.#refresh();
  }

  /** Says once for each shard why rows do not go by a segment where they could. */
  #noSegment(shard: number, why: string): void {
    if (this.#noSegmentTold.has(shard)) return;
    this.#noSegmentTold.add(shard);
    this.#options.log.warn({ shard, why }, "no segment: rows go by the socket");
  }

  #refresh(): void {
    const { digest, log, metrics } = this.#options;
    const held = this.clients.map((client) => client?.holds());
    this.#shards = held.map((holds) => ({
      slots: holds?.slots.map(({ layer, expert }) => [layer, expert] as const) ?? [],
    }));
    const before = this.#ready;
    this.#ready = held.map((holds) => holds !== undefined && holds.digest === digest);
    held.forEach((holds, index) => {
      if (this.clients[index] === undefined) return;
      if (holds !== undefined) this.#awaySinceMs.delete(index);
      else if (!this.#awaySinceMs.has(index)) this.#awaySinceMs.set(index, performance.now());
      const shard = String(index);
      metrics.set("moevie_expert_shard_ready", { shard }, this.#ready[index] ? 1 : 0);
      const path = this.#ready[index] ? this.clients[index]?.path : undefined;
      for (const each of PATHS) metrics.set("moevie_exchange_path", { shard, path: each }, each === path ? 1 : 0);
      if (holds !== undefined && !this.#ready[index])
        log.warn({ shard, digest: holds.digest }, "shard serves another bundle");
      else if (before[index] !== this.#ready[index]) log.info({ shard, ready: this.#ready[index] }, "shard changed");
    });
    metrics.set("moevie_placement_epoch", {}, this.epoch);
    this.#holders.clear();
    this.missingSinceMs = this.missing().length > 0 ? (this.missingSinceMs ?? performance.now()) : undefined;
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    resolve();
  }
}
