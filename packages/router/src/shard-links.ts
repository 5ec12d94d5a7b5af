// The router's shards: a stream to each, what they hold, who may serve which expert of a layer just now, and how busy each is with this router.
import { MoevieError, limit } from "@moevie/contracts";
import { connectExchange } from "@moevie/fabric";
import type { ExchangeClient } from "@moevie/fabric";
import { holdersOf, uncovered } from "@moevie/placement";
import type { ModelExperts, ShardPlacement } from "@moevie/placement";
import { newPeers, pause } from "@moevie/runtime";
import type { Logger, Metrics, PeerAddress } from "@moevie/runtime";

export interface ShardLinksOptions {
  /** The place of each is its number. Numbered ones are called once they are there. */
  readonly addresses: readonly PeerAddress[];
  /** Shards of another bundle are not used. */
  readonly digest: string;
  readonly model: ModelExperts;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics: Metrics;
}

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
  held(): readonly { readonly address: string; readonly ready: boolean; readonly slots: ShardPlacement["slots"] }[] {
    return this.clients.map((_, index) => ({
      address: this.#options.addresses[index]?.address ?? "",
      ready: this.#ready[index] === true,
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
      onLateAnswer: () => metrics.add("moevie_exchange_late_answers_total", labels),
    });
  }

  /** Looks for shards that joined until this is closed. One that was there stays known: it may come back. */
  async #watch(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const known = new Set(this.clients.flatMap((client, index) => (client === undefined ? [] : [index])));
      const found = await newPeers(this.#options.addresses, known);
      if (signal.aborted) return;
      for (const index of found) this.#join(index);
      if (found.length > 0) this.#refresh();
      await pause(limit("peerLookMs"), signal).catch(() => undefined);
    }
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
      const shard = String(index);
      metrics.set("moevie_expert_shard_ready", { shard }, this.#ready[index] ? 1 : 0);
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
