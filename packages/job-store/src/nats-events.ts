// Events of jobs in a limits stream. An event is part of the record's write and is published after it on the condition that the one
// before it is the last of its subject: so a publisher that dies leaves no gap (whoever reads next adds it) and a late one no copy.
import { headers } from "@nats-io/transport-node";
import { PubHeaders } from "@nats-io/jetstream";
import type { JobEvent } from "./job-store.ts";
import { isConflict } from "./nats-connection.ts";
import type { EventBody, JobEntry, PendingEvent } from "./nats-record.ts";
import type { NatsParts } from "./nats-streams.ts";

interface Published {
  readonly number: number;
  readonly body: EventBody;
}

/** Of an event in the stream. */
interface Place {
  readonly number: number;
  readonly sequence: number;
}

const TRIES_MAX = 3;

export class EventLog {
  readonly #parts: NatsParts;
  /** Where each job's newest known event stands. */
  readonly #places = new Map<string, Place>();

  constructor(parts: NatsParts) {
    this.#parts = parts;
  }

  forget(id: string): void {
    this.#places.delete(id);
  }

  /** Makes sure that the record's event is in the stream and answers where it stands, or where a later one does. */
  async settle({ id, event }: { readonly id: string; readonly event: PendingEvent }): Promise<Place> {
    const known = this.#places.get(id);
    if (known !== undefined && known.number >= event.number) return known;
    let { after } = event;
    for (let tries = 1; ; tries += 1) {
      try {
        return this.#remember(id, { number: event.number, sequence: await this.#publish(id, event, after) });
      } catch (thrown) {
        if (!isConflict(thrown) || tries === TRIES_MAX) throw thrown;
        const last = await this.#read(id, "last");
        if (last !== undefined && last.published.number >= event.number)
          return this.#remember(id, { number: last.published.number, sequence: last.sequence });
        // Retention took the one before, or it came by another way: what is last now is what it follows.
        after = last?.sequence ?? 0;
      }
    }
  }

  /** Events of `entry` after the cursor, in order, without a gap. Previews come as revisions. */
  async after({ job }: JobEntry, cursor: number, eventsMax: number): Promise<readonly (JobEvent & EventBody)[]> {
    const { id, event } = job;
    const known = this.#places.get(id);
    if (known?.number === event.number && cursor >= known.sequence) return [];
    const events: (JobEvent & EventBody)[] = [];
    let at = cursor;
    // Events before the record's are in the stream; its own may have to be put there, and then it is read like the others.
    for (let isSettled = false; events.length < eventsMax;) {
      const found = await this.#read(id, { seq: at + 1 });
      if (found !== undefined) {
        at = found.sequence;
        events.push({ ...found.published.body, sequence: at });
        isSettled ||= found.published.number >= event.number;
      } else if (isSettled) break;
      else {
        await this.settle(job);
        isSettled = true;
      }
    }
    return events;
  }

  async #publish(id: string, { number, body }: PendingEvent, after: number): Promise<number> {
    const head = headers();
    head.set(PubHeaders.ExpectedLastSubjectSequenceHdr, String(after));
    const data = JSON.stringify({ number, body } satisfies Published);
    return (await this.#parts.js.publish(this.#parts.names.eventSubject(id), data, { headers: head })).seq;
  }

  #remember(id: string, place: Place): Place {
    if (place.number >= (this.#places.get(id)?.number ?? 0)) this.#places.set(id, place);
    return place;
  }

  async #read(
    id: string,
    which: "last" | { readonly seq: number },
  ): Promise<{ readonly published: Published; readonly sequence: number } | undefined> {
    const { jsm, names } = this.#parts;
    const subject = names.eventSubject(id);
    const query = which === "last" ? { last_by_subj: subject } : { seq: which.seq, next_by_subj: subject };
    const message = await jsm.streams.getMessage(names.eventStream, query);
    if (message === null) return undefined;
    return { published: message.json<Published>(), sequence: message.seq };
  }
}
