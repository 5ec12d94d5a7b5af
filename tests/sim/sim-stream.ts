// A JetStream stream in memory: subjects, sequences, conditions on the last sequence of a subject. As nats-server does it, without time.
import { JetStreamApiError } from "@nats-io/jetstream";

export interface StreamMessage {
  readonly seq: number;
  readonly subject: string;
  readonly data: Uint8Array;
  /** Marks a removed key: DEL or PURGE. */
  readonly operation?: string;
}

const WRONG_LAST_SEQUENCE = 10071;

export class SimStream {
  readonly messages = new Map<number, StreamMessage>();
  readonly last = new Map<string, StreamMessage>();
  readonly #messagesPerSubjectMax: number;
  #seq = 0;

  constructor(messagesPerSubjectMax: number) {
    this.#messagesPerSubjectMax = messagesPerSubjectMax;
  }

  /** Throws as the server does when the subject's last sequence is not `expected`; 0: none. */
  publish(subject: string, data: Uint8Array, expected?: number, operation?: string): StreamMessage {
    const before = this.last.get(subject);
    if (expected !== undefined && (before?.seq ?? 0) !== expected)
      throw new JetStreamApiError({
        code: 400,
        err_code: WRONG_LAST_SEQUENCE,
        description: `wrong last sequence: ${before?.seq ?? 0}`,
      });
    const message = { seq: ++this.#seq, subject, data, ...(operation === undefined ? {} : { operation }) };
    this.messages.set(message.seq, message);
    this.last.set(subject, message);
    if (this.#messagesPerSubjectMax === 1 && before !== undefined) this.messages.delete(before.seq);
    return message;
  }

  /** The first message of `subject` at `seq` or after it. */
  next(subject: string, seq: number): StreamMessage | undefined {
    for (const message of this.messages.values()) if (message.seq >= seq && message.subject === subject) return message;
    return undefined;
  }

  /** Subjects that begin with `prefix`, and how many messages each has. */
  subjects(prefix: string): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const { subject } of this.messages.values())
      if (subject.startsWith(prefix)) counts[subject] = (counts[subject] ?? 0) + 1;
    return counts;
  }

  /** Removes all messages of `subject`, or those before `seq`. */
  purge(subject: string, seq = Infinity): void {
    for (const message of this.messages.values())
      if (message.subject === subject && message.seq < seq) this.messages.delete(message.seq);
    if ((this.last.get(subject)?.seq ?? 0) < seq) this.last.delete(subject);
  }
}
