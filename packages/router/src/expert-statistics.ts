// Rows per (step phase, layer, expert) since the start: what a placement is made from, and what the terminal shows. Counting only.

/** A job's steps fall into so many phases, by their timesteps; the first is the noisiest. */
const PHASES = 4;
const TRAIN_TIMESTEPS = 1000;

/** What experts were asked for at timesteps from `fromTimestep` on, up to the phase before: [layers][experts]. */
interface PhaseRows {
  readonly fromTimestep: number;
  readonly rows: number[][];
}

export interface ExpertLoads {
  /** Of all phases, [layers][experts]. */
  readonly rows: number[][];
  readonly phases: readonly PhaseRows[];
}

export class ExpertStatistics {
  /** [phases][layers][experts]. */
  readonly #rows: readonly (readonly Float64Array[])[];

  constructor(layers: number, experts: number) {
    this.#rows = Array.from({ length: PHASES }, () => Array.from({ length: layers }, () => new Float64Array(experts)));
  }

  /** Counts the gate's choices of one call at a timestep from 0 to 1000, [tokens · k]. */
  count(layer: number, ids: Int32Array, timestep: number): void {
    const phase = Math.min(PHASES - 1, Math.floor(((TRAIN_TIMESTEPS - timestep) / TRAIN_TIMESTEPS) * PHASES));
    const rows = this.#rows[phase]?.[layer];
    if (rows === undefined) return;
    for (const expert of ids) rows[expert] = (rows[expert] ?? 0) + 1;
  }

  snapshot(): ExpertLoads {
    const [first = [], ...others] = this.#rows;
    return {
      rows: first.map((rows, layer) =>
        Array.from(rows, (count, expert) => others.reduce((sum, phase) => sum + (phase[layer]?.[expert] ?? 0), count)),
      ),
      phases: this.#rows.map((layers, phase) => ({
        fromTimestep: TRAIN_TIMESTEPS * (1 - (phase + 1) / PHASES),
        rows: layers.map((rows) => [...rows]),
      })),
    };
  }
}
