// Request ids of submissions, a key each: which job a request made, so that a repetition finds it. The key is written before the job;
// one whose job is not there belongs to a submission that was cut off, and the next with that id carries it out.
import { MoevieError, asMoevieError } from "@moevie/contracts";
import type { KV } from "@nats-io/kv";
import { isConflict } from "./nats-connection.ts";
import type { JobEntry } from "./nats-record.ts";
import { removeKey, type NatsParts } from "./nats-streams.ts";

interface RequestEntry {
  readonly id: string;
  readonly digest: string;
}

export interface Reservation {
  readonly requestKey: string;
  readonly digest: string;
  readonly newId: string;
  /** Throws VIDEO_NOT_FOUND. */
  readonly read: (id: string) => Promise<JobEntry>;
  /** Throws QUEUE_FULL. */
  readonly checkRoom: () => void;
}

const TRIES_MAX = 16;

export class RequestKeys {
  readonly #parts: NatsParts;
  readonly #records: KV;

  constructor(parts: NatsParts) {
    this.#parts = parts;
    this.#records = parts.records;
  }

  /** The job the request made before, or the id it is to be made under. Throws REQUEST_ID_REUSED and what checkRoom throws. */
  async reserve({
    requestKey,
    digest,
    newId,
    read,
    checkRoom,
  }: Reservation): Promise<{ readonly id: string; readonly job?: JobEntry }> {
    for (let tries = 0; tries < TRIES_MAX; tries += 1) {
      const found = await this.#records.get(keyOf(requestKey));
      const isThere = found?.operation === "PUT";
      const earlier = isThere ? found.json<RequestEntry>() : undefined;
      const job = earlier === undefined ? undefined : await read(earlier.id).catch(absent);
      if (earlier !== undefined && job !== undefined) {
        if (earlier.digest === digest) return { id: earlier.id, job };
        throw new MoevieError("REQUEST_ID_REUSED", "This request_id was used before with another body.");
      }
      checkRoom();
      if (earlier?.digest === digest) return { id: earlier.id };
      const value = JSON.stringify({ id: newId, digest } satisfies RequestEntry);
      try {
        if (isThere) await this.#records.update(keyOf(requestKey), value, found.revision);
        else await this.#records.create(keyOf(requestKey), value);
        return { id: newId };
      } catch (thrown) {
        if (!isConflict(thrown)) throw thrown;
      }
    }
    throw new MoevieError("PEER_UNAVAILABLE", "Too many submissions have this request_id at once.");
  }

  /** Forgets a request whose job was removed. */
  async forget(requestKey: string, id: string): Promise<void> {
    const found = await this.#records.get(keyOf(requestKey));
    if (found?.operation !== "PUT" || found.json<RequestEntry>().id !== id) return;
    await removeKey(this.#parts, keyOf(requestKey), found.revision);
  }
}

/** A job that is not there is no error here; anything else is. */
export function absent(thrown: unknown): undefined {
  if (asMoevieError(thrown).reason !== "VIDEO_NOT_FOUND") throw thrown;
}

function keyOf(requestKey: string): string {
  return `request.${requestKey}`;
}
