// Loads by layer and expert of late: what routers count since their start, each count worth half after a half-life. Pure; the caller says
// what time it is.

export class LoadWindow {
  readonly #halfLifeMs: number;
  readonly #loads: readonly Float64Array[];
  /** What each router said last. */
  readonly #before = new Map<string, readonly Float64Array[]>();
  #atMs = 0;

  constructor(layers: number, experts: number, halfLifeMs: number) {
    this.#halfLifeMs = halfLifeMs;
    this.#loads = Array.from({ length: layers }, () => new Float64Array(experts));
  }

  /** Rows a router counted since it started, [layers][experts]; fewer than before: it started again. */
  add(router: string, counted: readonly Float64Array[], nowMs: number): void {
    const worth = 0.5 ** (Math.max(0, nowMs - this.#atMs) / this.#halfLifeMs);
    this.#atMs = nowMs;
    const before = this.#before.get(router);
    this.#before.set(router, counted);
    const restarted = counted.some((layer, at) => layer.some((rows, expert) => rows < (before?.[at]?.[expert] ?? 0)));
    this.#loads.forEach((layer, at) => {
      for (let expert = 0; expert < layer.length; expert++) {
        const rows = counted[at]?.[expert] ?? 0;
        const fresh = restarted ? rows : rows - (before?.[at]?.[expert] ?? 0);
        layer[expert] = (layer[expert] ?? 0) * worth + fresh;
      }
    });
  }

  /** [layers][experts], a copy. */
  loads(): Float64Array[] {
    return this.#loads.map((layer) => layer.slice());
  }
}
