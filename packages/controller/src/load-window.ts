// Loads by layer and expert of late: what routers count since their start, each count worth half after a half-life. A router that is gone
// counts no more once that is worth little. Pure; the caller says what time it is.

/** Half-lives after which a router that was not heard of is forgotten. */
const FORGOTTEN_HALF_LIVES = 4;

interface RouterCounts {
  /** What it said last, [layers][experts]. */
  readonly counted: readonly Float64Array[];
  /** Worth as of `atMs`, [layers][experts]. */
  readonly loads: readonly Float64Array[];
  readonly atMs: number;
}

export class LoadWindow {
  readonly #halfLifeMs: number;
  readonly #layers: number;
  readonly #experts: number;
  /** By address. */
  readonly #routers = new Map<string, RouterCounts>();

  constructor(layers: number, experts: number, halfLifeMs: number) {
    this.#layers = layers;
    this.#experts = experts;
    this.#halfLifeMs = halfLifeMs;
  }

  /** Rows a router counted since it started, [layers][experts]; fewer than before: it started again. */
  add(router: string, counted: readonly Float64Array[], nowMs: number): void {
    const before = this.#routers.get(router);
    const since = before?.counted ?? [];
    const restarted = counted.some((layer, at) => layer.some((rows, expert) => rows < (since[at]?.[expert] ?? 0)));
    const worth = before === undefined ? 0 : this.#worth(before, nowMs);
    const loads = this.#table((layer, expert) => {
      const rows = counted[layer]?.[expert] ?? 0;
      const fresh = restarted ? rows : rows - (since[layer]?.[expert] ?? 0);
      return (before?.loads[layer]?.[expert] ?? 0) * worth + fresh;
    });
    this.#routers.set(router, { counted, loads, atMs: nowMs });
  }

  /** Of all routers that were heard of lately, [layers][experts]. */
  loads(nowMs: number): Float64Array[] {
    for (const [router, { atMs }] of this.#routers)
      if (nowMs - atMs >= FORGOTTEN_HALF_LIVES * this.#halfLifeMs) this.#routers.delete(router);
    const known = [...this.#routers.values()].map((of) => ({ loads: of.loads, worth: this.#worth(of, nowMs) }));
    return this.#table((layer, expert) =>
      known.reduce((sum, { loads, worth }) => sum + (loads[layer]?.[expert] ?? 0) * worth, 0),
    );
  }

  #worth({ atMs }: RouterCounts, nowMs: number): number {
    return 0.5 ** (Math.max(0, nowMs - atMs) / this.#halfLifeMs);
  }

  #table(valueOf: (layer: number, expert: number) => number): Float64Array[] {
    return Array.from({ length: this.#layers }, (_, layer) =>
      Float64Array.from({ length: this.#experts }, (_value, expert) => valueOf(layer, expert)),
    );
  }
}
