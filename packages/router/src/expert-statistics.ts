// Rows per (layer, expert) since the start: what a placement is later made from. Counting only.

export class ExpertStatistics {
  readonly #rows: readonly Float64Array[];

  constructor(layers: number, experts: number) {
    this.#rows = Array.from({ length: layers }, () => new Float64Array(experts));
  }

  /** Counts the gate's choices of one call, [tokens · k]. */
  count(layer: number, ids: Int32Array): void {
    const rows = this.#rows[layer];
    if (rows === undefined) return;
    for (const expert of ids) rows[expert] = (rows[expert] ?? 0) + 1;
  }

  /** [layers][experts]. */
  snapshot(): number[][] {
    return this.#rows.map((rows) => [...rows]);
  }
}
