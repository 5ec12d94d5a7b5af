// A NATS server in memory, as far as the job store uses one. Its disk survives everything; who reaches it is the links' matter.
import type { SimProcess, World } from "./world.ts";
import { SimStream, type StreamMessage } from "./sim-stream.ts";

/** Hears of every record written, and by whom. */
export type RecordObserver = (writer: SimProcess, before: StreamMessage | undefined, after: StreamMessage) => void;

export interface Watcher {
  readonly filter: string;
  readonly hear: (message: StreamMessage) => void;
}

interface WakeUp {
  readonly message: StreamMessage;
  /** Held by a claimant until then. */
  heldUntilMs: number;
}

const ACK_WAIT_MS = 500;

export class SimServer {
  readonly records = new SimStream(1);
  readonly events = new SimStream(Infinity);
  readonly files = new SimStream(Infinity);
  readonly watchers = new Set<Watcher>();
  onRecord: RecordObserver = () => undefined;
  readonly #world: World;
  readonly #wakeUps = new Map<string, WakeUp>();
  readonly #pulls: ((message: StreamMessage) => void)[] = [];
  #wakeSequence = 0;

  constructor(world: World) {
    this.#world = world;
  }

  /** Throws a conflict when the subject's last sequence is not `expected`. */
  writeRecord(
    writer: SimProcess,
    subject: string,
    data: Uint8Array,
    expected?: number,
    operation?: string,
  ): StreamMessage {
    const before = this.records.last.get(subject);
    const after = this.records.publish(subject, data, expected, operation);
    this.onRecord(writer, before, after);
    for (const watcher of this.watchers) if (subject.startsWith(watcher.filter)) watcher.hear(after);
    return after;
  }

  wake(subject: string): void {
    const message = { seq: ++this.#wakeSequence, subject, data: new Uint8Array() };
    this.#wakeUps.set(subject, { message, heldUntilMs: 0 });
    this.#dispatch();
  }

  /** `hear` gets one wake-up, unless it is taken back first. */
  pull(hear: (message: StreamMessage) => void): () => void {
    this.#pulls.push(hear);
    this.#dispatch();
    return () => {
      const at = this.#pulls.indexOf(hear);
      if (at >= 0) this.#pulls.splice(at, 1);
    };
  }

  acknowledge({ subject, seq }: StreamMessage): void {
    if (this.#wakeUps.get(subject)?.message.seq === seq) this.#wakeUps.delete(subject);
  }

  refuse({ subject, seq }: StreamMessage): void {
    const held = this.#wakeUps.get(subject);
    if (held?.message.seq !== seq) return;
    held.heldUntilMs = 0;
    this.#dispatch();
  }

  #dispatch(): void {
    for (const wakeUp of this.#wakeUps.values()) {
      if (wakeUp.heldUntilMs > this.#world.nowMs) continue;
      const hear = this.#pulls.shift();
      if (hear === undefined) return;
      wakeUp.heldUntilMs = this.#world.nowMs + ACK_WAIT_MS;
      this.#world.after(ACK_WAIT_MS, () => this.#dispatch());
      hear(wakeUp.message);
    }
  }
}
