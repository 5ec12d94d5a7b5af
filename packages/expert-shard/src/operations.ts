// Changes of what the shard holds: one operation at a time, each to an absolute target, with an id, a phase that can be asked for and a
// deadline, rolled back when its load fails. Loads nothing itself and knows no graph.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { Holds } from "@moevie/fabric";
import { pause } from "@moevie/runtime";
import type { Logger, Metrics } from "@moevie/runtime";
import { changeSlots } from "./change-slots.ts";
import type { ValidChange } from "./valid-change.ts";

/** Pause between two looks at whether a shard that leaves holds anything still. */
const LOOK_MS = 50;
/** Operations that ended, kept so that who asks again learns how. */
const ENDED_MAX = 256;

/** What is loaded and ran once, and answers nobody yet. Exactly one of the two is called. */
export interface PreparedChange {
  /** Takes over between two calls; what it replaces is unloaded after its last call. */
  commit(): void;
  discard(): void;
}

/** The experts of a shard, of whichever kind. */
export interface HeldExperts {
  /** Memory that `prepare` takes, in bytes. */
  neededBytes(layer: number, experts: readonly number[]): Promise<number>;
  /** Loads what `layer` is to become, while it goes on as it is. Throws BUNDLE_CORRUPT, UNSUPPORTED or OUT_OF_MEMORY. */
  prepare(layer: number, experts: readonly number[]): Promise<PreparedChange>;
}

/** loading → done | rolled back; nothing follows either. */
export type Operation = ValidChange &
  (
    | { readonly phase: "loading" | "done" }
    | { readonly phase: "rolled back"; readonly why: Pick<MoevieError, "reason" | "message"> }
  );

export interface OperationsOptions {
  readonly held: HeldExperts;
  readonly holds: Holds;
  /** Bytes a load may take now. */
  readonly freeBytes: () => number;
  readonly log: Pick<Logger, "info" | "warn">;
  readonly metrics: Pick<Metrics, "add" | "set">;
  /** Of the shard, for metrics. */
  readonly shard: string;
}

export class Operations {
  readonly #options: OperationsOptions;
  /** By id, the oldest first. */
  readonly #known = new Map<string, Operation>();
  #holds: Holds;
  #fence = 0;
  /** The operation whose load is under way; after its deadline it goes on here until the load has ended. */
  #running: string | undefined;
  #announce: (holds: Holds) => void = () => undefined;
  #leaving = false;
  #left = false;

  constructor(options: OperationsOptions) {
    this.#options = options;
    this.#holds = options.holds;
    options.metrics.set("moevie_expert_epoch", { shard: options.shard }, options.holds.epoch);
  }

  get holds(): Holds {
    return this.#holds;
  }

  /** The highest fence a change came with. */
  get fence(): number {
    return this.#fence;
  }

  get running(): Operation | undefined {
    return this.#running === undefined ? undefined : this.#known.get(this.#running);
  }

  /** Whether the shard was told to end. */
  get leaving(): boolean {
    return this.#leaving;
  }

  /**
   * Says that the shard leaves, and resolves when it holds nothing any more or `leaveMs` have passed. Routers are then told that it holds
   * nothing, under a new epoch, so that they send elsewhere what is still under way to it.
   */
  async leave(leaveMs: number): Promise<void> {
    const { log, metrics, shard } = this.#options;
    this.#leaving = true;
    const startMs = performance.now();
    const tookMs = (): number => Math.round(performance.now() - startMs);
    while (this.#holds.slots.length > 0 && tookMs() < leaveMs) await pause(LOOK_MS);
    this.#left = true;
    log.info({ slots: this.#holds.slots.length, tookMs: tookMs() }, "the shard leaves");
    this.#announce({ ...this.#holds, epoch: this.#holds.epoch + 1, slots: [] });
    metrics.set("moevie_expert_epoch", { shard }, this.#holds.epoch + 1);
  }

  /** `announce` is told at once of every change. */
  announceTo(announce: (holds: Holds) => void): void {
    this.#announce = announce;
  }

  /** Throws OPERATION_NOT_FOUND. */
  get(id: string): Operation {
    const found = this.#known.get(id);
    if (found !== undefined) return found;
    throw new MoevieError("OPERATION_NOT_FOUND", `The shard knows no operation "${id}".`);
  }

  /**
   * Starts an operation, or answers the one that has this id, unless that was rolled back. Throws LEASE_LOST for a fence below one it has seen, STALE_PLACEMENT for an
   * epoch that is not above the shard's, INVALID_FIELD for an id that stands for something else, QUEUE_FULL while another one runs,
   * OUT_OF_MEMORY with the bytes, DRAINING once the shard has left: nobody may count on what it would load.
   */
  async apply(change: ValidChange): Promise<Operation> {
    const known = this.#known.get(change.id);
    // One that was rolled back may be tried again: what it failed for may have passed.
    if (known !== undefined && known.phase !== "rolled back") return sameAs(known, change);
    if (this.#left) throw new MoevieError("DRAINING", "The shard is going away.");
    if (change.fence < this.#fence)
      throw new MoevieError("LEASE_LOST", `The change has fence ${change.fence}, the shard has seen ${this.#fence}.`);
    this.#fence = change.fence;
    if (change.epoch <= this.#holds.epoch)
      throw new MoevieError("STALE_PLACEMENT", `The change has epoch ${change.epoch}, the shard ${this.#holds.epoch}.`);
    if (this.#running !== undefined)
      throw new MoevieError("QUEUE_FULL", `Operation "${this.#running}" is under way.`, { retryAfterMs: 100 });
    this.#running = change.id;
    try {
      await this.#checkMemory(change);
    } catch (thrown) {
      this.#running = undefined;
      throw thrown;
    }
    this.#keep({ ...change, phase: "loading" });
    void this.#run(change);
    return this.get(change.id);
  }

  async #checkMemory({ layer, experts }: ValidChange): Promise<void> {
    const neededBytes = await this.#options.held.neededBytes(layer, experts);
    const freeBytes = this.#options.freeBytes();
    if (neededBytes <= freeBytes) return;
    const what = experts.length === 1 ? "1 expert" : `${experts.length} experts`;
    const text = `Loading ${what} of layer ${layer} takes ${neededBytes} bytes, ${freeBytes} are free.`;
    throw new MoevieError("OUT_OF_MEMORY", text, { memory: { neededBytes, freeBytes } });
  }

  async #run(change: ValidChange): Promise<void> {
    const startMs = performance.now();
    const ended = new AbortController();
    const late = new MoevieError("DEADLINE", `Loading was not done after ${change.deadlineMs} ms.`);
    const deadline = pause(change.deadlineMs, ended.signal).then(
      () => this.#rollBack(change, late),
      () => undefined,
    );
    try {
      const prepared = await this.#options.held.prepare(change.layer, change.experts);
      const isWanted = this.get(change.id).phase === "loading" && !this.#left;
      if (isWanted) this.#commit(change, prepared, performance.now() - startMs);
      else prepared.discard();
      if (this.#left) this.#rollBack(change, new MoevieError("DRAINING", "The shard has left."));
    } catch (thrown) {
      this.#rollBack(change, asMoevieError(thrown));
    } finally {
      ended.abort();
      await deadline;
      this.#running = undefined;
    }
  }

  #commit(change: ValidChange, prepared: PreparedChange, tookMs: number): void {
    prepared.commit();
    const { log, metrics, shard } = this.#options;
    this.#holds = changeSlots(this.#holds, change);
    this.#announce(this.#holds);
    this.#keep({ ...change, phase: "done" });
    metrics.set("moevie_expert_epoch", { shard }, change.epoch);
    metrics.add("moevie_expert_changes_total", { shard, outcome: "done" }, 1);
    const { id: operation, layer, experts, epoch } = change;
    log.info({ operation, layer, experts, epoch, tookMs: Math.round(tookMs) }, "experts changed");
  }

  #rollBack(change: ValidChange, error: MoevieError): void {
    const { log, metrics, shard } = this.#options;
    if (this.get(change.id).phase !== "loading") return;
    this.#keep({ ...change, phase: "rolled back", why: { reason: error.reason, message: error.message } });
    metrics.add("moevie_expert_changes_total", { shard, outcome: "rolled_back" }, 1);
    const facts = { operation: change.id, layer: change.layer, reason: error.reason, detail: error.detail };
    log.warn(facts, "a change of experts was rolled back");
  }

  #keep(operation: Operation): void {
    this.#known.delete(operation.id);
    this.#known.set(operation.id, operation);
    const [oldest] = this.#known.keys();
    if (this.#known.size > ENDED_MAX && oldest !== undefined) this.#known.delete(oldest);
  }
}

/** `known`, if it stands for `change`. */
function sameAs(known: Operation, change: ValidChange): Operation {
  const [is, was] = [change, known].map(({ layer, epoch, experts }) => JSON.stringify([layer, epoch, experts]));
  if (is === was) return known;
  throw new MoevieError("INVALID_FIELD", `Operation "${change.id}" stands for another change.`);
}
