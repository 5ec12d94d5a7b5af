// One turn of a controller after the other: take or renew the lease, look, decide, move. All that it knows is in its status.
import { asMoevieError, limit } from "@moevie/contracts";
import { explainPlan, uncovered } from "@moevie/placement";
import type { ModelExperts, Placement } from "@moevie/placement";
import { pause } from "@moevie/runtime";
import type { Logger, Metrics } from "@moevie/runtime";
import { heldPlacement, staying } from "./cluster-view.ts";
import type { ClusterView, ClusterWatch } from "./cluster-view.ts";
import type { ControllerConfig } from "./config.ts";
import { decide } from "./decide.ts";
import type { Decision } from "./decide.ts";
import type { PlacementKeeper } from "./kept-placement.ts";
import type { Leadership } from "./lease.ts";
import type { LoadWindow } from "./load-window.ts";
import type { Stage } from "./layer-stages.ts";
import { rebalance } from "./rebalance.ts";
import type { RebalanceFailure, RebalanceOptions } from "./rebalance.ts";
import type { Refusals } from "./refusals.ts";

export interface LeaderOptions {
  readonly config: ControllerConfig;
  readonly keeper: PlacementKeeper;
  readonly leadership: Leadership;
  readonly loads: LoadWindow;
  readonly refusals: Refusals;
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
  /** Highest fence a shard has seen. */
  #fenceSeen = 0;
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
  }

  /** What HTTP /plan shows. */
  status(nowMs: number): object {
    const { before, after, slotsBefore, slotsAfter, why, plan, unplaced = [] } = this.#decision ?? {};
    const last = this.#last === undefined ? {} : { ...this.#last, ageMs: Math.round(nowMs - this.#last.endedMs) };
    return {
      leads: this.#options.leadership.fence !== undefined,
      fence: this.#options.leadership.fence,
      epoch: this.#epoch,
      phase: this.#phase,
      suspects: this.#suspects,
      refusals: this.#options.refusals.shown(nowMs),
      unplaced,
      why,
      balancedness: { before, after, bound: plan?.balancedness.bound },
      slotsBalancedness: { before: slotsBefore, after: slotsAfter },
      explanation: plan === undefined ? [] : explainPlan(plan),
      lastRebalance: this.#last === undefined ? undefined : { ...last, endedMs: undefined },
    };
  }

  /** Never throws: what goes wrong is logged, and the next turn begins anew. */
  async turn(signal: AbortSignal): Promise<void> {
    try {
      if (!(await this.#lead())) {
        this.#phase = { kind: "following" };
        return;
      }
      const nowMs = performance.now();
      this.#measure(nowMs);
      const wasMissed = this.#isMissed;
      this.#isMissed = await this.#options.watch.isMissed(signal);
      const isNews = this.#isMissed && !wasMissed;
      if (!isNews && nowMs - this.#lookedMs < this.#options.config.planMs) return;
      this.#lookedMs = nowMs;
      // What a shard refuses is asked of another at once: each time it is less that is asked.
      for (let isAgain = true; isAgain;) isAgain = await this.#look(signal);
    } catch (thrown) {
      const error = asMoevieError(thrown);
      if (signal.aborted) return;
      if (error.reason === "LEASE_LOST") this.#options.leadership.follow();
      this.#options.log.warn({ reason: error.reason, detail: error.detail, err: error.cause }, error.message);
    }
    if (this.#phase.kind === "moving") this.#phase = { kind: "idle" };
  }

  /** Lets others lead at once. */
  async stepDown(): Promise<void> {
    await this.#options.leadership.release();
    this.#phase = { kind: "following" };
  }

  async #lead(): Promise<boolean> {
    const { leadership } = this.#options;
    // Whoever lost the lease's record begins to count anew, and shards would refuse it.
    if (leadership.fence !== undefined && leadership.fence < this.#fenceSeen) await leadership.release();
    if (!(await leadership.lead(this.#fenceSeen))) return false;
    if (this.#phase.kind === "following") this.#phase = { kind: "idle" };
    return true;
  }

  /** Looks and moves once: whether a shard refused, so that there is something else to decide. */
  async #look(signal: AbortSignal): Promise<boolean> {
    const { leadership, metrics, refusals, watch } = this.#options;
    const nowMs = performance.now();
    const view = await watch.look(nowMs, signal, this.#isMissed);
    this.#suspects = view.suspects;
    refusals.look(view.members, nowMs);
    metrics.set("moevie_controller_bounded_shards", {}, refusals.shown(nowMs).length);
    this.#fenceSeen = Math.max(this.#fenceSeen, ...view.members.map(({ holdings }) => holdings.fence));
    if (this.#fenceSeen > (leadership.fence ?? 0)) return false;
    return view.suspects.length === 0 && staying(view).length > 0 && (await this.#bringAbout(view, signal));
  }

  /** Finishes what was decided before, or decides anew and brings that about: whether a shard refused. */
  async #bringAbout(view: ClusterView, signal: AbortSignal): Promise<boolean> {
    const { config, keeper, leadership, model, loads, refusals } = this.#options;
    const stay = staying(view);
    const members = stay.map(({ index }) => index);
    const rooms = members.map((index) => refusals.room(index));
    const held = heldPlacement(stay);
    const kept = await keeper.read(model);
    // What was decided before a shard refused cannot be had.
    const isKept =
      kept !== undefined && sameMembers(kept.members, members) && rooms.every((room) => room === undefined);
    const current = isKept ? kept : held;
    const mature = this.#last === undefined || performance.now() - this.#last.endedMs >= config.ageMsMin;
    this.#decision = decide({
      model,
      loads: loads.loads(performance.now()),
      current,
      held,
      rooms,
      mature,
      slots: config.slots,
      gainMin: config.gainMin,
    });
    this.#tellBalance(this.#decision);
    this.#epoch = held.epoch;
    const decided = this.#decision.placement;
    if (decided !== undefined) await keeper.write({ ...decided, members }, leadership.fence ?? 0);
    const wanted = decided ?? current;
    const empty = { slots: [] };
    // Who leaves is to hold nothing, and says whom it waits for by that.
    const target = view.members.map(({ index }) => wanted.shards[members.indexOf(index)] ?? empty);
    const restRatio = uncovered(held.shards, model).length > 0 ? 0 : config.restRatio;
    const all = heldPlacement(view.members);
    if (sameSlots(all, { ...wanted, shards: target })) return false;
    return this.#move(view, { held: all, wanted: { ...wanted, shards: target }, restRatio }, signal);
  }

  #tellBalance({ before, after, slotsBefore, slotsAfter }: Decision): void {
    const { metrics } = this.#options;
    const tell = (of: string, over: string, ratio: number): void =>
      metrics.set("moevie_controller_balancedness_ratio", { of, over }, ratio);
    tell("placement", "shards", before);
    tell("plan", "shards", after);
    tell("placement", "slots", slotsBefore);
    tell("plan", "slots", slotsAfter);
  }

  /** Whether a shard refused to hold more. */
  async #move(
    view: ClusterView,
    way: Pick<RebalanceOptions, "held" | "wanted" | "restRatio">,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { keeper, leadership, log, metrics, model } = this.#options;
    const fence = leadership.fence ?? 0;
    const why = this.#decision?.placement === undefined ? "shards hold something else" : (this.#decision.why ?? "");
    log.info({ why }, "experts move");
    const startMs = performance.now();
    const moving = new AbortController();
    const during = Promise.all([leadership.hold(moving), this.#beHeard(moving.signal)]);
    const { layersChanged, failure } = await rebalance({
      members: view.members,
      ...way,
      layers: model.layers,
      fence,
      signal: AbortSignal.any([signal, moving.signal]),
      onStage: (layer, stage) => {
        leadership.check();
        this.#phase = { kind: "moving", layer, stage };
      },
    }).finally(() => moving.abort());
    await during;
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
    if (failure === undefined) return false;
    const isLess = this.#refused(view, failure, endedMs);
    // What was wanted cannot be had: from now on the shards are to hold what they hold.
    const after = await this.#options.watch.look(endedMs, signal, this.#isMissed);
    const stay = staying(after);
    const members = stay.map(({ index }) => index);
    if (after.suspects.length === 0) await keeper.write({ ...heldPlacement(stay), members }, fence);
    return isLess;
  }

  /** Remembers what a shard did not load: whether less is asked of it from now on. */
  #refused({ members }: ClusterView, failure: RebalanceFailure, nowMs: number): boolean {
    const { leadership, log, metrics, refusals } = this.#options;
    const member = members[failure.member];
    if (member === undefined) return false;
    const isLess = refusals.add(member, failure, leadership.fence ?? 0, nowMs);
    const room = refusals.room(member.index);
    if (room === undefined) return false;
    const shard = String(member.index);
    metrics.add("moevie_controller_refusals_total", { shard });
    const { error, layer, asked } = failure;
    const facts = { shard, layer, experts: asked.length, room, reason: error.reason, ...error.memory };
    log.warn(facts, `a shard refused experts: ${error.message}`);
    return isLess;
  }

  /** Routers hear that somebody leads while experts move, until `moving` aborts. */
  async #beHeard(moving: AbortSignal): Promise<void> {
    while (!moving.aborted) {
      await this.#options.watch.isMissed(moving).catch(() => undefined);
      await pause(limit("leaseRenewMs"), moving).catch(() => undefined);
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
