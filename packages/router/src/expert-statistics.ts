// Rows per (layer, expert, step phase) since the start: what placements are made from. Counting only.

/** A step belongs to the first phase whose bound its timestep is not below: a job goes through them in order. */
export const PHASE_BOUNDS: readonly number[] = [750, 500, 250, 0];

export class ExpertStatistics {
  /** [phases][layers][experts]. */
  readonly #rows: readonly (readonly Float64Array[])[];

  constructor(layers: number, experts: number) {
    this.#rows = PHASE_BOUNDS.map(() => Array.from({ length: layers }, () => new Float64Array(experts)));
  }

  /** Counts the gate's choices of one call, [tokens · k], at a timestep from 0 to 1000. */
  count(layer: number, ids: Int32Array, timestep: number): void {
    const phase = PHASE_BOUNDS.findIndex((bound) => timestep >= bound);
    const rows = this.#rows[phase]?.[layer];
    if (rows === undefined) return;
    for (const expert of ids) rows[expert] = (rows[expert] ?? 0) + 1;
  }

  /** Over all phases [layers][experts], and by phase [phases][layers][experts]. */
  snapshot(): { readonly rows: number[][]; readonly phases: number[][][] } {
    const phases = this.#rows.map((layers) => layers.map((rows) => [...rows]));
    const rows = (phases[0] ?? []).map((experts, layer) =>
      experts.map((_, expert) => phases.reduce((sum, layers) => sum + (layers[layer]?.[expert] ?? 0), 0)),
    );
    return { rows, phases };
  }
}
