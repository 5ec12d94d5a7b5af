// Decides which leases are dead without comparing clocks of two machines: one whose revision has not changed for its own length
// on this observer's monotonic clock. Pure state: reads no clock and no store.

/** A running job's lease as the store shows it now. */
export interface LeaseSighting {
  readonly number: number;
  readonly token: number;
  readonly revision: number;
  readonly leaseMs: number;
}

interface Seen {
  readonly key: string;
  readonly sinceMs: number;
}

export class LeaseWatch {
  readonly #seen = new Map<number, Seen>();

  /** Takes all running leases at monotonic time `nowMs`; answers those that are dead. Forgets leases no longer listed. */
  observe(sightings: readonly LeaseSighting[], nowMs: number): readonly LeaseSighting[] {
    const dead: LeaseSighting[] = [];
    const listed = new Set(sightings.map((sighting) => sighting.number));
    for (const number of this.#seen.keys()) if (!listed.has(number)) this.#seen.delete(number);
    for (const sighting of sightings) {
      const key = `${sighting.token}:${sighting.revision}`;
      const before = this.#seen.get(sighting.number);
      if (before?.key !== key) this.#seen.set(sighting.number, { key, sinceMs: nowMs });
      else if (nowMs - before.sinceMs >= sighting.leaseMs) dead.push(sighting);
    }
    return dead;
  }
}
