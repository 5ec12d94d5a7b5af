// Bare wake-ups from the work stream: a claimant with nothing to do has one pull open; what arrives is held until a claim was tried,
// then acknowledged. They decide nothing: the record does. A lost one costs only the time until the watch is heard.
import type { JsMsg } from "@nats-io/jetstream";
import { limit } from "@moevie/contracts";
import type { Clock } from "@moevie/runtime";
import type { NatsParts } from "./nats-streams.ts";

export interface WakeUp {
  /** The job that waits, or waited. */
  readonly id: string;
  /** To be called when a claim was tried. */
  done(): void;
}

export class WakeUps {
  readonly #parts: NatsParts;
  readonly #onWake: () => void;
  readonly #signal: AbortSignal;
  readonly #clock: Clock;
  #held: JsMsg | undefined;
  #pulling = false;

  constructor(parts: NatsParts, onWake: () => void, signal: AbortSignal, clock: Clock) {
    this.#parts = parts;
    this.#onWake = onWake;
    this.#signal = signal;
    this.#clock = clock;
  }

  /** Is a pull open that will hear of new jobs? */
  get armed(): boolean {
    return this.#pulling;
  }

  /** Tells one idle claimant of a waiting job. Never rejects: watches hear of the job, too. */
  async send(id: string): Promise<void> {
    await this.#parts.js.publish(this.#parts.names.wakeSubject(id)).catch(() => undefined);
  }

  /** The wake-up held, if there is one. */
  take(): WakeUp | undefined {
    const message = this.#held;
    this.#held = undefined;
    if (message === undefined) return undefined;
    return { id: message.subject.slice(message.subject.lastIndexOf(".") + 1), done: () => message.ack() };
  }

  /** Opens a pull, unless one is open or a wake-up is held. */
  arm(): void {
    if (this.#pulling || this.#held !== undefined || this.#signal.aborted) return;
    this.#pulling = true;
    void this.#pull();
  }

  async #pull(): Promise<void> {
    try {
      const message = await this.#parts.wakeConsumer.next({ expires: limit("natsWakeMsMax") });
      if (message === null) return;
      this.#held = message;
      this.#onWake();
      // A claimant that does not come lets another have it.
      await this.#clock.pause(limit("natsWakeMsMax") / 2, this.#signal).catch(() => undefined);
      if (this.#held !== message) return;
      this.#held = undefined;
      message.nak();
    } catch {
      // The server is away: the next turn of the claimant opens another.
    } finally {
      this.#pulling = false;
    }
  }
}
