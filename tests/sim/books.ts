// The auditor of a simulation: sees every record as the store's ground takes it, keeps books of its own, and says what must never be. It knows
// the promises of docs/operations/job-store.md, and nothing of how the store keeps them.
import type { Change, Ground, SeenJob } from "./ground.ts";
import { Turns, type Waiter } from "./turns.ts";
import type { SimProcess, World } from "./world.ts";

interface Account {
  /** In the order of their first record. */
  readonly number: number;
  claims: number;
  releases: number;
  completions: number;
  highestToken: number;
  holder: SimProcess | undefined;
  writtenMs: number;
  events: number;
}

/** A look at leases and a message lie between the end of a lease and the write that takes it. */
const LEASE_SLACK_MS = 1;

export interface Rules {
  readonly leaseMs: number;
  readonly attemptsMax: number;
  /** sha256 of the clip that a calm run gives; undefined: this is that run. */
  readonly expectedSha256: (job: SeenJob) => string | undefined;
}

export class Books {
  readonly violations: string[] = [];
  readonly accounts = new Map<string, Account>();
  readonly jobs = new Map<string, SeenJob>();
  readonly deleted = new Set<string>();
  #turns = new Turns();
  readonly #leases = new Map<string, SimProcess>();
  readonly #world: World;
  readonly #ground: Ground;
  readonly #rules: Rules;

  constructor(world: World, ground: Ground, rules: Rules) {
    this.#world = world;
    this.#ground = ground;
    this.#rules = rules;
    ground.onChange = (change) => this.#see(change);
    ground.onFault = (what) => this.say(what);
  }

  say(violation: string): void {
    this.#world.tell(`VIOLATION ${violation}`);
    this.violations.push(violation);
  }

  nameOf(id: string): string {
    return `job ${this.accounts.get(id)?.number ?? "?"}`;
  }

  /** A scheduler was given a lease. */
  claimed({ id, token }: { readonly id: string; readonly token: number }, by: SimProcess): void {
    const key = `${id}:${token}`;
    const other = this.#leases.get(key);
    if (other !== undefined) this.say(`${other.name} and ${by.name} hold the same lease of ${this.nameOf(id)}`);
    this.#leases.set(key, by);
  }

  #see({ writer, id, after: job, isFirst, tokenDue }: Change): void {
    if (job === undefined) {
      this.deleted.add(id);
      this.jobs.delete(id);
      // What tenants were given lies in the records: it goes with the last.
      if (this.jobs.size === 0) this.#turns = new Turns();
      return;
    }
    const previous = isFirst ? undefined : this.jobs.get(id);
    if (previous === undefined) return this.#opened(id, job);
    const account = this.accounts.get(id)!;
    this.#world.tell(
      `${this.nameOf(id)} ${previous.state.kind} → ${job.state.kind} attempt ${job.attempt} by ${writer.name}`,
    );
    this.#checkMove(id, account, writer, previous, job, tokenDue);
    this.jobs.set(id, job);
    // A flag that somebody else sets is no sign of the holder's life.
    if (writer === account.holder) account.writtenMs = this.#world.nowMs;
    account.events = job.events;
  }

  #opened(id: string, job: SeenJob): void {
    if (this.deleted.has(id)) this.say(`a deleted job came back: ${this.nameOf(id)}`);
    this.jobs.set(id, job);
    this.accounts.set(id, {
      number: this.accounts.size + 1,
      claims: 0,
      releases: 0,
      completions: 0,
      highestToken: 0,
      holder: undefined,
      writtenMs: this.#world.nowMs,
      events: 1,
    });
    this.#world.tell(`${this.nameOf(id)} submitted`);
  }

  #checkMove(id: string, account: Account, writer: SimProcess, from: SeenJob, to: SeenJob, tokenDue: number): void {
    const name = this.nameOf(id);
    const [before, after] = [from.state, to.state];
    if (before.kind !== "queued" && before.kind !== "running" && JSON.stringify(before) !== JSON.stringify(after))
      this.say(`${name} left its end: ${before.kind} → ${after.kind} by ${writer.name}`);
    if (to.events !== account.events && to.events !== account.events + 1)
      this.say(`${name} went from event ${account.events} to ${to.events}`);
    if (after.kind === "queued" && before.kind === "queued")
      this.say(`${writer.name} wrote to ${name} while it waited`);
    if (after.kind === "running" && before.kind === "queued") {
      this.#checkTurn(id);
      account.claims += 1;
      if (after.token !== tokenDue || after.token <= account.highestToken)
        this.say(`${name} was claimed with the token ${after.token}, not with ${tokenDue}`);
      account.highestToken = after.token;
      account.holder = writer;
    } else if (before.kind === "running") this.#checkHeld(name, account, writer, from, to);
    if (to.attempt !== account.claims - account.releases)
      this.say(
        `${name} says attempt ${to.attempt}, was started ${account.claims} times, given back ${account.releases} times`,
      );
    if (after.kind === "completed" && before.kind !== "completed") this.#checkClip(id, name, account, to);
  }

  /** Fairness: the job that a claim takes is the one whose turn it is. */
  #checkTurn(id: string): void {
    const waiting = [...this.jobs].flatMap(([each, { state, spec, tenant, turnMs }]): Waiter[] => {
      const { number, claims } = this.accounts.get(each)!;
      return state.kind === "queued" ? [{ id: each, number, tenant, turnMs, spec, isBegun: claims > 0 }] : [];
    });
    const due = this.#turns.due(waiting);
    if (this.#ground.ordersExactly && due !== undefined && due.id !== id)
      this.say(`${this.nameOf(id)} was claimed, it was the turn of ${this.nameOf(due.id)}`);
    const claimed = waiting.find((job) => job.id === id);
    if (claimed !== undefined) this.#turns.charge(claimed);
  }

  #checkHeld(name: string, account: Account, writer: SimProcess, from: SeenJob, to: SeenJob): void {
    const [before, after] = [from.state, to.state];
    if (before.kind !== "running") return;
    const isHolder = writer === account.holder;
    const isReleased = after.kind !== "completed" && to.attempt === from.attempt - 1;
    if (isReleased) account.releases += 1;
    if (after.kind === "running") {
      if (after.token !== before.token) this.say(`${name} changed its token while it ran`);
      const isFlag = !before.cancelRequested && after.cancelRequested;
      if (!isHolder && !isFlag) this.say(`${writer.name} wrote to ${name}, which ${account.holder?.name} holds`);
      for (const file of to.checkpoints)
        if (!from.checkpoints.includes(file) && !file.startsWith(`${after.token}-`))
          this.say(`${name} took a checkpoint of another lease`);
      return;
    }
    if (isHolder && (isReleased || after.kind !== "queued")) return;
    if (after.kind === "completed" || isReleased) {
      this.say(`${writer.name} ended ${name} (${after.kind}), which ${account.holder?.name} holds`);
      return;
    }
    this.#checkExpiry(name, account, writer, from, to);
  }

  /** Somebody took the lease: its owner was silent for a whole lease, or comes back under its name after its death. */
  #checkExpiry(name: string, account: Account, writer: SimProcess, from: SeenJob, to: SeenJob): void {
    const silentMs = this.#world.nowMs - account.writtenMs;
    const owner = from.state.kind === "running" ? from.state.owner : "";
    const isBack = account.holder?.alive === false && writer.name.startsWith(owner);
    if (!isBack && silentMs < this.#rules.leaseMs - LEASE_SLACK_MS)
      this.say(`${writer.name} took the lease of ${name} after ${silentMs.toFixed(0)} ms`);
    if (to.state.kind === "failed" && from.attempt < this.#rules.attemptsMax)
      this.say(`${name} failed for good at attempt ${from.attempt}`);
    if (to.state.kind === "queued" && from.attempt >= this.#rules.attemptsMax)
      this.say(`${name} waits again after attempt ${from.attempt}`);
  }

  #checkClip(id: string, name: string, account: Account, job: SeenJob): void {
    account.completions += 1;
    if (account.completions > 1) this.say(`${name} was completed twice`);
    if (job.state.kind !== "completed") return;
    const { sha256 } = job.state.artefact;
    if (sha256 !== (this.#rules.expectedSha256(job) ?? sha256))
      this.say(`${name} has another clip than a calm run gives`);
    if (this.#ground.clipSha256(id, job.state.token) !== sha256)
      this.say(`${name} is completed, its clip is not there`);
  }

  /** What must hold when everything is calm again. `asked`: request id → job its client was told of, if it was told. */
  audit(asked: ReadonlyMap<string, string | undefined>): void {
    for (const [request, id] of asked)
      if (id === undefined) this.say(`${request} was never answered`);
      else if (!this.jobs.has(id) && !this.deleted.has(id)) this.say(`${request} was accepted and is lost`);
    if (this.accounts.size > asked.size) this.say(`${asked.size} requests made ${this.accounts.size} jobs`);
    for (const [id, job] of this.jobs) {
      const name = this.nameOf(id);
      const { state } = job;
      if (state.kind === "queued" || state.kind === "running") this.say(`${name} never ended: ${state.kind}`);
      const isExcused = state.kind === "failed" && this.#ground.excuses.has(state.error.reason);
      const isSpent = state.kind === "failed" && state.error.reason === "PEER_UNAVAILABLE";
      if (state.kind === "failed" && !isExcused && (!isSpent || job.attempt < this.#rules.attemptsMax))
        this.say(`${name} failed at attempt ${job.attempt}: ${state.error.reason} ${state.error.message}`);
      if (state.kind === "completed" && this.#ground.clipSha256(id, state.token) === undefined)
        this.say(`the clip of ${name} is gone`);
      const fault = this.#ground.eventsFault(id, job);
      if (fault !== undefined) this.say(`${name}: ${fault}`);
    }
    for (const file of this.#ground.leftOver(this.jobs)) this.say(`${file} was left over`);
  }
}
