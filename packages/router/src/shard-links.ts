// The router's shards: a stream to each, what they hold, who may serve which expert of a layer just now, and how busy each is with this router.
import { MoevieError } from "@moevie/contracts";
import { connectExchange } from "@moevie/fabric";
import type { ExchangeClient, ExchangePath } from "@moevie/fabric";
import { holdersOf, uncovered } from "@moevie/placement";
import type { ModelExperts, ShardPlacement } from "@moevie/placement";
import type { Logger, Metrics } from "@moevie/runtime";

export interface ShardLinksOptions {
  readonly addresses: readonly string[];
  /** Shards of another bundle are not used. */
  readonly digest: string;
  readonly model: ModelExperts;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics: Metrics;
  /** Folder of memory for rows to shards of this host; without it they go by the socket. */
  readonly segmentFolder?: string | undefined;
}

const PATHS: readonly ExchangePath[] = ["tcp", "unix", "segment"];

/** Shards by expert, [experts][any]. */
export type Holders = readonly (readonly number[])[];

export class ShardLinks {
  readonly clients: readonly ExchangeClient[];
  readonly #options: ShardLinksOptions;
  #shards: ShardPlacement[] = [];
  #ready: boolean[] = [];
  readonly #holders = new Map<number, Holders>();
  /** Whether each shard is on this host: what it listens on is a socket file. */
  readonly sameHost: readonly boolean[];
  /** Rows this router has at each shard. */
  readonly rowsInFlight: Uint32Array;
  readonly #noSegmentTold = new Set<number>();
  #changed = Promise.withResolvers<void>();

  constructor(options: ShardLinksOptions) {
    this.#options = options;
    this.sameHost = options.addresses.map((address) => address.startsWith("unix:"));
    this.rowsInFlight = new Uint32Array(options.addresses.length);
    this.clients = options.addresses.map((address, index) => {
      const labels = { shard: String(index) };
      options.metrics.declare("moevie_exchange_late_answers_total", [labels]);
      return connectExchange(address, {
        onChange: () => this.#refresh(),
        segmentFolder: options.segmentFolder,
        onNoSegment: (why) => this.#noSegment(index, why),
        onLateAnswer: () => options.metrics.add("moevie_exchange_late_answers_total", labels),
      });
    });
    this.#refresh();
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
    return this.#options.addresses.map((address, index) => ({
      address,
      ready: this.#ready[index] === true,
      path: this.clients[index]?.path,
      slots: this.#shards[index]?.slots ?? [],
    }));
  }

  /** Newest placement epoch a connected shard has. */
  get epoch(): number {
    return Math.max(0, ...(this.clients ?? []).map((client) => client.holds()?.epoch ?? 0));
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

  /** As change, bounded: throws CANCELLED on the signal and EXPERT_MISSING with `missing` when performance.now() passes `endMs`. */
  async waitForChange(signal: AbortSignal, endMs: number, missing: string): Promise<void> {
    const timeout = AbortSignal.timeout(Math.max(1, Math.ceil(endMs - performance.now())));
    try {
      await this.change(AbortSignal.any([timeout, signal]));
    } catch {
      if (signal.aborted) throw new MoevieError("CANCELLED", "The call was cancelled.");
      throw new MoevieError("EXPERT_MISSING", missing);
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
    for (const client of this.clients) client.close();
  }

  /** Says once for each shard why rows do not go by a segment where they could. */
  #noSegment(shard: number, why: string): void {
    if (this.#noSegmentTold.has(shard)) return;
    this.#noSegmentTold.add(shard);
    this.#options.log.warn({ shard, why }, "no segment: rows go by the socket");
  }

  #refresh(): void {
    const { digest, log, metrics } = this.#options;
    // A stream may answer while the list of streams is still being made.
    const held = (this.clients ?? []).map((client) => client.holds());
    this.#shards = held.map((holds) => ({
      slots: holds?.slots.map(({ layer, expert }) => [layer, expert] as const) ?? [],
    }));
    const before = this.#ready;
    this.#ready = held.map((holds) => holds !== undefined && holds.digest === digest);
    held.forEach((holds, index) => {
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
    const { resolve } = this.#changed;
    this.#changed = Promise.withResolvers<void>();
    resolve();
  }
}
