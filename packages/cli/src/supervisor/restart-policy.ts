// How often and how soon a service that died is started again. Pure: the caller brings the time and does the waiting.

/** Pause before the first restart; doubles with each one inside the window. */
const BACK_OFF_MS_MIN = 200;
const BACK_OFF_MS_MAX = 5000;
/** Restarts of one service inside the window before the cluster gives up. */
export const RESTARTS_MAX = 6;
const WINDOW_MS = 60_000;

export type RestartDecision =
  | { readonly kind: "restart"; readonly afterMs: number }
  | { readonly kind: "give-up"; readonly restarts: number };

export class RestartPolicy {
  readonly #endsMs: number[] = [];

  /** The service ended at `nowMs`. */
  decide(nowMs: number): RestartDecision {
    while (this.#endsMs.length > 0 && (this.#endsMs[0] ?? 0) <= nowMs - WINDOW_MS) this.#endsMs.shift();
    if (this.#endsMs.length >= RESTARTS_MAX) return { kind: "give-up", restarts: this.#endsMs.length };
    const afterMs = Math.min(BACK_OFF_MS_MIN * 2 ** this.#endsMs.length, BACK_OFF_MS_MAX);
    this.#endsMs.push(nowMs);
    return { kind: "restart", afterMs };
  }
}
