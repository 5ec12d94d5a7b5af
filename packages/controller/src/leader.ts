// One turn of a controller after the other: take or renew the lease, look, decide, move. All that it knows is in its status.
import { asMoevieError, limit } from "@moevie/contracts";
import { explainPlan, uncovered } from "@moevie/placement";
import type { ModelExperts, Placement } from "@moevie/placement";
import { pause } from "@moevie/runtime";
import type { Logger, Metrics } from "@moevie/runtime";
import { heldPlacement } from "./cluster-view.ts";
import type { ClusterView, ClusterWatch } from "./cluster-view.ts";
import type { ControllerConfig } from "./config.ts";
import { decide } from "./decide.ts";
import type { Decision } from "./decide.ts";
import type { FileLease } from "./file-lease.ts";
import { readKept, writeKept } from "./kept-placement.ts";
import type { LoadWindow } from "./load-window.ts";
import type { Stage } from "./layer-stages.ts";
import { rebalance } from "./rebalance.ts";

export interface LeaderOptions {
  readonly config: ControllerConfig;
  /** Holds the newest placement. */
  readonly folder: string;
  readonly lease: FileLease;
  readonly loads: LoadWindow;
  readonly watch: ClusterWatch;
  readonly model: ModelExperts;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** following → idle ⇄ moving; back to following when the lease is lost. */
type Phase =
  | { readonly kind: "following" | "idle" }
  | { readonly kind: "moving"; readonly layer: number; readonly stage: Stage["kind"] };

interface Rebalance {
  readonly outcome: "done" | "rolled_back";
  readonly why: string;
  readonly layersChanged: number;
  readonly tookMs: number;
  readonly endedMs: number;
}

export class Leader {
  readonly #options: LeaderOptions;
  #fence: number | undefined;
  #phase: Phase = { kind: "following" };
  #decision: Decision | undefined;
  #epoch = 0;
  #last: Rebalance | undefined;
  #lookedMs = -Infinity;
  #suspects: readonly string[] = [];
  /** Steps wait for an expert that no router reaches. */
  #isMissed = false;

  constructor(options: LeaderOptions) {
    this.#options = options;
    options.metrics.set("moevie_controller_leader", {}, 0);
  }

  /** What HTTP /plan shows. */
  status(nowMs: number): object {
    const { before, after, why, plan } = this.#decision ?? {};
    const last = this.#last === undefined ? {} : { ...this.#last, ageMs: Math.round(nowMs - this.#last.endedMs) };
    return {
      leads: this.#fence !== undefined,
      fence: this.#fence,
      epoch: this.#epoch,
      phase: this.#phase,
      suspects: this.#suspects,
      why,
      balancedness: { before, after, bound: plan?.balancedness.bound },
      explanation: plan === undefined ? [] : explainPlan(plan),
      lastRebalance: this.#last === undefined ? undefined : { ...last, endedMs: undefined },
    };
  }

  /** Never throws: what goes wrong is logged, and the next turn begins anew. */
  async turn(signal: AbortSignal): Promise<void> {
    try {
      if (!(await this.#lead())) return;
      const nowMs = performance.now();
      this.#measure(nowMs);
      const wasMissed = this.#isMissed;
      this.#isMissed = await this.#options.watch.isMissed(signal);
      const isNews = this.#isMissed && !wasMissed;
      if (!isNews && nowMs - this.#lookedMs < this.#options.config.planMs) return;
      this.#lookedMs = nowMs;
      const view = await this.#options.watch.look(nowMs, signal, this.#isMissed);
      this.#suspects = view.suspects;
      if (view.suspects.length === 0 && view.members.length > 0) await this.#bringAbout(view, signal);
    } catch (thrown) {
      const error = asMoevieError(thrown);
      if (signal.aborted) return;
      if (error.reason === "LEASE_LOST") this.#follow();
      this.#options.log.warn({ reason: error.reason, detail: error.detail, err: error.cause }, error.message);
    }
    if (this.#phase.kind === "moving") this.#phase = { kind: "idle" };
  }

  /** Lets others lead at once. */
  async stepDown(): Promise<void> {
    if (this.#fence !== undefined) await this.#options.lease.release(this.#fence).catch(() => undefined);
    this.#follow();
  }

  async #lead(): Promise<boolean> {
    const { lease, metrics, log } = this.#options;
    if (this.#fence !== undefined) {
      await lease.renew(this.#fence);
      return true;
    }
    this.#fence = await lease.take(performance.now());
    if (this.#fence === undefined) return false;
    this.#phase = { kind: "idle" };
    metrics.set("moevie_controller_leader", {}, 1);
    log.info({ fence: this.#fence }, "this controller leads");
    return true;
  }

  #follow(): void {
    this.#fence = undefined;
    this.#phase = { kind: "following" };
    this.#options.metrics.set("moevie_controller_leader", {}, 0);
  }

  /** Finishes what was decided before, or decides anew and brings that about. */
  async #bringAbout(view: ClusterView, signal: AbortSignal): Promise<void> {
    const { config, folder, model, loads } = this.#options;
    const members = view.members.map(({ index }) => index);
    const held = heldPlacement(view.members);
    const kept = await readKept(folder, model);
    const current = kept !== undefined && sameMembers(kept.members, members) ? kept : held;
    const mature = this.#last === undefined || performance.now() - this.#last.endedMs >= config.ageMsMin;
    this.#decision = decide({
      model,
      loads: loads.loads(),
      current,
      mature,
      slots: config.slots,
      gainMin: config.gainMin,
    });
    const { metrics } = this.#options;
    metrics.set("moevie_controller_balancedness_ratio", { of: "placement" }, this.#decision.before);
    metrics.set("moevie_controller_balancedness_ratio", { of: "plan" }, this.#decision.after);
    this.#epoch = held.epoch;
    const decided = this.#decision.placement;
    if (decided !== undefined) await writeKept(folder, { ...decided, members });
    const wanted = decided ?? current;
    if (!sameSlots(held, wanted)) await this.#move(view, held, wanted, signal);
  }

  async #move(view: ClusterView, held: Placement, wanted: Placement, signal: AbortSignal): Promise<void> {
    const { folder, lease, log, metrics, model } = this.#options;
    const fence = this.#fence ?? 0;
    const why = this.#decision?.placement === undefined ? "shards hold something else" : (this.#decision.why ?? "");
    log.info({ why }, "experts move");
    const startMs = performance.now();
    const moving = new AbortController();
    const leaseHeld = this.#holdLease(fence, moving);
    const { layersChanged, failure } = await rebalance({
      members: view.members,
      held,
      wanted,
      layers: model.layers,
      fence,
      restRatio: uncovered(held.shards, model).length > 0 ? 0 : this.#options.config.restRatio,
      signal: AbortSignal.any([signal, moving.signal]),
      onStage: async (layer, stage) => {
        await lease.renew(fence);
        this.#phase = { kind: "moving", layer, stage };
      },
    }).finally(() => moving.abort());
    await leaseHeld;
    const endedMs = performance.now();
    const outcome = failure === undefined ? "done" : "rolled_back";
    this.#last = {
      outcome,
      why: failure?.error.message ?? why,
      layersChanged,
      tookMs: Math.round(endedMs - startMs),
      endedMs,
    };
    metrics.add("moevie_rebalances_total", { outcome }, 1);
    metrics.set("moevie_rebalance_last_seconds", {}, (endedMs - startMs) / 1000);
    log.info({ outcome, layersChanged, tookMs: this.#last.tookMs, detail: failure?.error.message }, "experts moved");
    if (failure === undefined) return;
    // What was wanted cannot be had: from now on the shards are to hold what they hold.
    const after = await this.#options.watch.look(endedMs, signal, this.#isMissed);
    const members = after.members.map(({ index }) => index);
    if (after.suspects.length === 0) await writeKept(folder, { ...heldPlacement(after.members), members });
  }

  /** Renews the lease until `moving` aborts, and aborts it when the lease is lost. Routers hear all the while that somebody leads. */
  async #holdLease(fence: number, moving: AbortController): Promise<void> {
    while (!moving.signal.aborted) {
      await pause(limit("leaseRenewMs"), moving.signal).catch(() => undefined);
      if (!moving.signal.aborted) await this.#options.lease.renew(fence).catch((lost: unknown) => moving.abort(lost));
      await this.#options.watch.isMissed(moving.signal);
    }
  }

  #measure(nowMs: number): void {
    if (this.#last === undefined) return;
    this.#options.metrics.set("moevie_rebalance_age_seconds", {}, (nowMs - this.#last.endedMs) / 1000);
  }
}

function sameMembers(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((member, at) => member === b[at]);
}

/** Whether each shard has the same experts, in whichever slots. */
function sameSlots(a: Placement, b: Placement): boolean {
  return slotNames(a) === slotNames(b);
}

function slotNames({ shards }: Placement): string {
  return JSON.stringify(shards.map(({ slots }) => slots.map(([layer, expert]) => `${layer}.${expert}`).sort()));
}
