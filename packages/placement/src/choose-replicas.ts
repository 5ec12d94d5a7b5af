// Chooses, row by row, the shard that serves each expert of the row where several hold it. Pure; the same input gives the same choice.

/** No shard that may be used holds the expert. */
export const NO_HOLDER = -1;

export interface ReplicaChoice {
  /** Experts the gate chose, row by row, [rows · k]. */
  readonly ids: Int32Array;
  readonly k: number;
  /** Shards that hold each expert and may be used, ascending, [experts][holders]. */
  readonly holders: readonly (readonly number[])[];
  /** Whether a shard is on the same host, [shards]. */
  readonly sameHost: readonly boolean[];
  /** Rows that each shard has room for, [shards]. */
  readonly credits: readonly number[];
}

/**
 * The shard of each entry, [rows · k], or NO_HOLDER. An entry whose expert has one holder goes there. Then, by ascending expert, an entry
 * goes to a holder that gets its row anyway, the first of several: the row is on its way, so it costs nothing. What is left of the
 * expert goes to holders on the same host as far as they have credits, then to the others: each holder gets a range of rows that follow
 * each other, as long as its credits are of theirs together, or equal ones where none has any. A row costs a shard one credit.
 *
 * With k above 2 the choice decides which sums are added first, so the last bit of a row may depend on the credits; equal credits repeat.
 */
export function chooseReplicas(choice: ReplicaChoice): Int32Array {
  const { ids, holders, sameHost } = choice;
  if (holders.every(({ length }) => length <= 1)) return ids.map((expert) => holders[expert]?.[0] ?? NO_HOLDER);
  const sent = new SentRows(choice);
  const open: number[][] = holders.map(() => []);
  ids.forEach((expert, entry) => {
    const [first, second] = holders[expert] ?? [];
    if (second !== undefined) open[expert]?.push(entry);
    else if (first !== undefined) sent.send(entry, first);
  });
  open.forEach((entries, expert) => {
    const near = (holders[expert] ?? []).filter((shard) => sameHost[shard] === true);
    const far = (holders[expert] ?? []).filter((shard) => sameHost[shard] !== true);
    const left = entries.filter((entry) => !sent.join(entry, holders[expert] ?? []));
    const nearCount = far.length === 0 ? left.length : Math.min(left.length, sent.creditsOf(near));
    shareOut(left.slice(0, nearCount), near, sent);
    shareOut(left.slice(nearCount), far.length === 0 ? near : far, sent);
  });
  return sent.shards;
}

/** Ranges of `entries`, one a shard, in proportion to credits. */
function shareOut(entries: readonly number[], shards: readonly number[], sent: SentRows): void {
  const total = sent.creditsOf(shards);
  const weights = shards.map((shard) => (total === 0 ? 1 : sent.creditsOf([shard])));
  const sum = total === 0 ? shards.length : total;
  let [start, before] = [0, 0];
  shards.forEach((shard, index) => {
    before += weights[index] ?? 0;
    const end = Math.round((entries.length * before) / sum);
    for (const entry of entries.slice(start, end)) sent.send(entry, shard);
    start = end;
  });
}

/** Which rows go where so far, and what credits that leaves. */
class SentRows {
  readonly shards: Int32Array;
  readonly #k: number;
  readonly #credits: number[];

  constructor({ ids, k, credits }: ReplicaChoice) {
    this.shards = new Int32Array(ids.length).fill(NO_HOLDER);
    this.#k = k;
    this.#credits = [...credits];
  }

  creditsOf(shards: readonly number[]): number {
    return shards.reduce((sum, shard) => sum + Math.max(0, this.#credits[shard] ?? 0), 0);
  }

  send(entry: number, shard: number): void {
    if (!this.#has(entry, shard)) this.#credits[shard] = (this.#credits[shard] ?? 0) - 1;
    this.shards[entry] = shard;
  }

  /** Sends the entry to a shard that gets its row; false where none of `shards` does. */
  join(entry: number, shards: readonly number[]): boolean {
    const shard = shards.find((each) => this.#has(entry, each));
    if (shard !== undefined) this.send(entry, shard);
    return shard !== undefined;
  }

  #has(entry: number, shard: number): boolean {
    const first = entry - (entry % this.#k);
    for (let at = first; at < first + this.#k; at++) if (this.shards[at] === shard) return true;
    return false;
  }
}
