// What a NATS store does by itself: ends leases that died, removes finished jobs beyond what is kept, and compares records, streams and
// files now and then. Every process may do all of it at once: each act is a compare-and-set or finds nothing left to do.
import { asMoevieError, limit } from "@moevie/contracts";
import type { Clock } from "@moevie/runtime";
import { artefactNames } from "./artefact-names.ts";
import { numberOf } from "./job-index.ts";
import { isFinal } from "./job-state.ts";
import type { Retention } from "./job-store.ts";
import { LeaseWatch, type LeaseSighting } from "./lease-watch.ts";
import type { NatsArtefacts } from "./nats-artefacts.ts";
import { filesNeeded, type JobEntry } from "./nats-record.ts";
import { removeKey, type NatsParts } from "./nats-streams.ts";
import type { RecordTable } from "./nats-table.ts";

export interface UpkeepParts {
  readonly parts: NatsParts;
  readonly table: RecordTable;
  readonly artefacts: NatsArtefacts;
  /** Absent: only leases are looked after. */
  readonly retention: Retention | undefined;
  readonly sweepMs: number;
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly onNotice: (line: string) => void;
  readonly lapse: (id: string, revision: number) => Promise<void>;
  readonly expire: (id: string, dead: LeaseSighting) => Promise<void>;
  readonly remove: (id: string) => Promise<void>;
}

const LEASE_LOOK_MS = 25;
const DEADLINE_LOOK_MS = 250;
const RETENTION_LOOK_MS = 1000;

export class Upkeep {
  readonly #of: UpkeepParts;
  #watch = new LeaseWatch();
  readonly #deadlines = new LeaseWatch();
  /** Chunks without an object, as the look before saw them: subject → number of chunks. */
  #strays: ReadonlyMap<string, number> = new Map();
  /** Removed keys, as the look before saw them: key → revision. */
  #markers: ReadonlyMap<string, number> = new Map();
  stopped: Promise<unknown> = Promise.resolve();

  constructor(of: UpkeepParts) {
    this.#of = of;
  }

  start(): void {
    const { retention } = this.#of;
    const loops = [
      this.#repeat(LEASE_LOOK_MS, () => this.#expireDead()),
      this.#repeat(DEADLINE_LOOK_MS, () => this.#lapseOverdue()),
      this.#followConnection(),
      ...(retention === undefined
        ? []
        : [
            this.#repeat(RETENTION_LOOK_MS, () => this.#removeFinished(retention)),
            this.#repeat(this.#of.sweepMs, () => this.#sweep()),
          ]),
    ];
    this.stopped = Promise.all(loops);
  }

  /** A failed turn waits for the next: the server is away, or another process was faster. */
  async #repeat(everyMs: number, work: () => Promise<void>): Promise<void> {
    const { signal } = this.#of;
    while (!signal.aborted) {
      await work().catch(() => undefined);
      await this.#of.clock.pause(everyMs, signal).catch(() => undefined);
    }
  }

  /** While the server was away no owner could renew: every lease has its whole length again. */
  async #followConnection(): Promise<void> {
    const { connection } = this.#of.parts;
    const statuses = connection.status()[Symbol.asyncIterator]();
    const ended = new Promise<{ readonly done: true }>((resolve) =>
      this.#of.signal.addEventListener("abort", () => resolve({ done: true }), { once: true }),
    );
    for (;;) {
      const next = await Promise.race([statuses.next(), ended]);
      if (next.done === true) return;
      if (next.value.type === "disconnect" || next.value.type === "reconnect") this.#watch = new LeaseWatch();
    }
  }

  async #expireDead(): Promise<void> {
    const leases = this.#of.table.index.leases();
    const ids = new Map(leases.map(({ number, id }) => [number, id]));
    for (const dead of this.#watch.observe(leases, this.#of.clock.monotonicMs()))
      await this.#of.expire(ids.get(dead.number) ?? "", dead).catch(() => undefined);
  }

  async #lapseOverdue(): Promise<void> {
    const overdue = this.#of.table.index.overdue(this.#of.clock.wallMs());
    const sightings = overdue.map((entry) => {
      const { revision } = entry;
      return { number: numberOf(entry), token: 0, revision, leaseMs: limit("deadlineToleranceMs") };
    });
    const ids = new Map(overdue.map((entry) => [entry.revision, entry.job.id]));
    for (const { revision } of this.#deadlines.observe(sightings, this.#of.clock.monotonicMs()))
      await this.#of.lapse(ids.get(revision) ?? "", revision).catch(() => undefined);
  }

  async #removeFinished({ jobsMax, ageMsMax, clipsBytesMax }: Retention): Promise<void> {
    const finished = [...this.#of.table.index.finished()].sort((one, other) => finishedAtMs(other) - finishedAtMs(one));
    const since = this.#of.clock.wallMs() - ageMsMax;
    let bytes = 0;
    const beyond = finished.filter((entry, place) => {
      const { state } = entry.job;
      bytes += state.kind === "completed" ? state.artefact.sizeBytes : 0;
      return place >= jobsMax || finishedAtMs(entry) < since || (bytes > clipsBytesMax && place > 0);
    });
    for (const { job } of beyond.toReversed().slice(0, limit("finishedPerLookMax")))
      await this.#of.remove(job.id).catch(() => undefined);
  }

  async #sweep(): Promise<void> {
    await this.#sweepFiles(await this.#of.artefacts.objects());
    await this.#sweepRecordless();
    await this.#sweepChunks();
    await this.#sweepMarkers();
    // Last: a place that is away holds up nothing else.
    await this.#sweepFiles(await this.#of.artefacts.inPlace());
  }

  /** Files first, records after: a file in this look whose lease does not hold the job then can never be needed again. */
  async #sweepFiles(names: readonly string[]): Promise<void> {
    const { artefacts, onNotice } = this.#of;
    const unneeded: string[] = [];
    for (const id of new Set(names.map((name) => name.slice(0, name.indexOf("/"))))) {
      const job = await this.#job(id);
      if (job === "unreadable") continue;
      const needed = new Set(job === undefined ? [] : filesNeeded(job.job, artefactNames));
      const live = job?.job.state.kind === "running" ? job.job.state.token : undefined;
      const own = names.filter((name) => name.startsWith(`${id}/`)).map((name) => name.slice(id.length + 1));
      const left = own.filter((name) => !needed.has(name) && Number.parseInt(name, 10) !== live);
      await artefacts.remove(id, left);
      unneeded.push(...left.map((name) => `${id}/${name}`));
    }
    if (unneeded.length > 0) onNotice(`removed files that no record names: ${unneeded.join(", ")}`);
  }

  /** Events and previews of jobs whose removal was cut off. A job's record is there before the first of them. */
  async #sweepRecordless(): Promise<void> {
    const { jsm, names } = this.#of.parts;
    const places = [
      { stream: names.eventStream, prefix: names.eventSubject("") },
      { stream: names.recordsStream, prefix: `$KV.${names.records}.preview.` },
    ];
    for (const { stream, prefix } of places) {
      const { state } = await jsm.streams.info(stream, { subjects_filter: `${prefix}*` });
      for (const subject of Object.keys(state.subjects ?? {}))
        if ((await this.#job(subject.slice(prefix.length))) === undefined)
          await jsm.streams.purge(stream, { filter: subject });
    }
  }

  /** Chunks of writers that died: without an object, and not one more since the look before. */
  async #sweepChunks(): Promise<void> {
    const { parts, onNotice } = this.#of;
    const { jsm, names, files } = parts;
    const prefix = `$O.${names.files}.C.`;
    const { state } = await jsm.streams.info(names.filesStream, { subjects_filter: `${prefix}>` });
    // Chunks first, objects after: one that was finished meanwhile is seen.
    const owned = new Set<string>();
    for (const name of await this.#of.artefacts.objects()) owned.add((await files.info(name))?.nuid ?? "");
    const strays = Object.entries(state.subjects ?? {}).filter(([subject]) => !owned.has(subject.slice(prefix.length)));
    for (const [subject, chunks] of strays) {
      if (this.#strays.get(subject) !== chunks) continue;
      await jsm.streams.purge(names.filesStream, { filter: subject });
      onNotice(`removed ${chunks} chunks of a file that was never finished`);
    }
    this.#strays = new Map(strays);
  }

  /** What a removed key leaves behind, once every watch had a whole look's time to hear of it. */
  async #sweepMarkers(): Promise<void> {
    const { records } = this.#of.parts;
    const markers = new Map<string, number>();
    for await (const entry of await records.history({ key: "job.*" }))
      if (entry.operation !== "PUT") markers.set(entry.key, entry.revision);
    for (const [key, revision] of markers) {
      if (this.#markers.get(key) === revision) await removeKey(this.#of.parts, key, revision);
    }
    this.#markers = markers;
  }

  async #job(id: string): Promise<JobEntry | "unreadable" | undefined> {
    try {
      return await this.#of.table.read(id);
    } catch (thrown) {
      const error = asMoevieError(thrown);
      if (error.reason === "VIDEO_NOT_FOUND") return undefined;
      if (error.reason === "PEER_UNAVAILABLE") throw error;
      return "unreadable";
    }
  }
}

function finishedAtMs({ job }: JobEntry): number {
  return isFinal(job.state) && "finishedAtMs" in job.state ? job.state.finishedAtMs : 0;
}
