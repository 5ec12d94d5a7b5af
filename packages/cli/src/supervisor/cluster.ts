// The running set of children: starts all at once, waits until each is ready, restarts or gives up, stops all.
// Owns the processes and nothing else; folders and signals belong to its callers.
import { CommandError, InterruptedError } from "../failure.ts";
import type { Clock } from "../clock.ts";
import type { ServicePlan } from "./plan-cluster.ts";
import { RestartPolicy } from "./restart-policy.ts";
import { STOP_GRACE_MS, ServiceProcess } from "./service-process.ts";

export interface ClusterOptions {
  readonly node: string;
  readonly nodeArguments: readonly string[];
  readonly clock: Clock;
  /** true: a service that dies after all were ready is started again. */
  readonly restart: boolean;
  readonly readyWaitMsMax: number;
  /** Aborting ends the start at once. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: ClusterEvent) => void;
  readonly forwardLog?: ((line: string) => void) | undefined;
}

export type ClusterEvent =
  | {
      readonly kind: "ready";
      readonly name: string;
      readonly afterMs: number;
      readonly readyCount: number;
      readonly count: number;
    }
  | { readonly kind: "died"; readonly name: string; readonly cause: string; readonly restartMs: number }
  | { readonly kind: "back"; readonly name: string };

interface Member {
  plan: ServicePlan;
  process: ServiceProcess;
  readonly policy: RestartPolicy;
}

export class Cluster {
  readonly #options: ClusterOptions;
  readonly #members: Member[] = [];
  readonly #fatal = Promise.withResolvers<CommandError>();
  readonly #stopping = new AbortController();

  constructor(plans: readonly ServicePlan[], options: ClusterOptions) {
    this.#options = options;
    for (const plan of plans) this.#members.push({ plan, process: this.#spawn(plan), policy: new RestartPolicy() });
  }

  /** Resolves when the cluster cannot go on, with the cause. Never rejects. */
  get fatal(): Promise<CommandError> {
    return this.#fatal.promise;
  }

  /** The processes as they are now. */
  processes(): ServiceProcess[] {
    return this.#members.map((member) => member.process);
  }

  /** Addresses a ready service reported. Throws for a name that is not ready (a programmer's error). */
  addresses(name: string): { grpc: string; http: string } {
    const state = this.#members.find((member) => member.plan.name === name)?.process.state;
    if (state?.kind !== "ready") throw new Error(`${name} is not ready`);
    return { grpc: state.grpc, http: state.http };
  }

  /** Waits until every service is ready, then begins to watch over them. Throws with the name and cause of what is not. */
  async waitReady(): Promise<void> {
    const { clock, readyWaitMsMax, signal } = this.#options;
    const startMs = clock.nowMs();
    const settled = new AbortController();
    const waits = signal === undefined ? settled.signal : AbortSignal.any([settled.signal, signal]);
    let readyCount = 0;
    const each = this.#members.map(async ({ plan, process }) => {
      await process.ready;
      readyCount += 1;
      this.#options.onEvent?.({
        kind: "ready",
        name: plan.name,
        afterMs: clock.nowMs() - startMs,
        readyCount,
        count: this.#members.length,
      });
    });
    const deaths = this.#members.map(async ({ plan, process }) => {
      const cause = await process.ended;
      throw new CommandError(`${plan.name} did not start: ${cause}`, "SERVICE_FAILED");
    });
    const deadline = clock.sleep(readyWaitMsMax, waits).then(() => {
      if (signal?.aborted === true) throw new InterruptedError();
      if (!settled.signal.aborted) throw this.#notReady(readyWaitMsMax);
    });
    try {
      await Promise.race([Promise.all(each), ...deaths, deadline]);
    } finally {
      settled.abort();
    }
    if (signal?.aborted === true) throw new InterruptedError();
    for (const member of this.#members) {
      this.#fixAddress(member);
      void this.#watch(member);
    }
  }

  /** Stops every service and waits until they are gone. `graceMs` 0 kills at once; may be called again to hurry. */
  async stop(graceMs: number = STOP_GRACE_MS): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#members.map((member) => member.process.stop(graceMs)));
  }

  #spawn(plan: ServicePlan): ServiceProcess {
    const { node, nodeArguments, clock, forwardLog } = this.#options;
    return new ServiceProcess(plan, { node, nodeArguments, clock, forwardLog });
  }

  #notReady(waitedMs: number): CommandError {
    const late = this.#members
      .filter((member) => member.process.state.kind !== "ready")
      .map((member) => member.plan.name);
    return new CommandError(`not ready after ${Math.round(waitedMs / 1000)} s: ${late.join(", ")}`, "DEADLINE");
  }

  /** A port the system chose must be the same after a restart: clients know it by now. */
  #fixAddress(member: Member): void {
    const { state } = member.process;
    if (state.kind !== "ready") return;
    const environment = { ...member.plan.environment };
    if (state.grpc !== "") environment["MOEVIE_GRPC_LISTEN"] = state.grpc;
    if (state.http !== "") environment["MOEVIE_HTTP_LISTEN"] = state.http;
    member.plan = { ...member.plan, environment };
  }

  async #watch(member: Member): Promise<void> {
    const { clock, onEvent, restart, readyWaitMsMax } = this.#options;
    for (;;) {
      const cause = await member.process.ended;
      if (this.#stopping.signal.aborted) return;
      const decision = restart ? member.policy.decide(clock.nowMs()) : undefined;
      if (decision?.kind !== "restart") {
        const tries = decision === undefined ? "" : ` for the ${decision.restarts + 1}th time within a minute`;
        this.#fatal.resolve(new CommandError(`${member.plan.name} died${tries}: ${cause}`, "SERVICE_FAILED"));
        return;
      }
      onEvent?.({ kind: "died", name: member.plan.name, cause, restartMs: decision.afterMs });
      await clock.sleep(decision.afterMs, this.#stopping.signal);
      if (this.#stopping.signal.aborted) return;
      member.process = this.#spawn(member.plan);
      await this.#settle(member.process, readyWaitMsMax);
      if (member.process.state.kind === "ready") onEvent?.({ kind: "back", name: member.plan.name });
    }
  }

  /** Waits until a restarted process is ready or gone; one that is neither in time is killed. */
  async #settle(process: ServiceProcess, waitMs: number): Promise<void> {
    const settled = new AbortController();
    const late = this.#options.clock.sleep(waitMs, AbortSignal.any([settled.signal, this.#stopping.signal]));
    await Promise.race([process.ready, process.ended, late]);
    settled.abort();
    if (process.state.kind === "starting" && !this.#stopping.signal.aborted) process.kill();
  }
}
