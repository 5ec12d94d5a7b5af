// One machine in memory: the job store's real SQLite file, its disk, and what goes wrong there. Sees every record as a transaction leaves it.
import { createHash } from "node:crypto";
import { MoevieError } from "@moevie/contracts";
import type { JobState } from "@moevie/job-store";
import { openDatabase } from "@moevie/job-store/parts";
import type { Change, Forced, SeenJob } from "./ground.ts";
import { SimDisk } from "./sim-disk.ts";
import type { SimProcess, World } from "./world.ts";

export type Database = ReturnType<typeof openDatabase>;

const BYTES_MAX = 2 ** 26;
const SQLITE_BUSY = 5;
const SQLITE_FULL = 13;
/** Of writes while the disk is full: others find room in what the file's log has already. */
const FULL_SHARE = 0.7;
const ARTEFACTS = "/artefacts";

const JOBS = `
SELECT number, id, state_json AS state, record_json AS record, attempt, token, lease_revision AS revision,
  (SELECT count(*) FROM events WHERE job = jobs.number) AS events,
  (SELECT group_concat(name, ' ') FROM checkpoints WHERE job = jobs.number) AS checkpoints
FROM jobs`;

interface Row {
  readonly number: number;
  readonly id: string;
  readonly state: string;
  readonly record: string;
  readonly attempt: number;
  readonly token: number;
  readonly revision: number;
  readonly events: number;
  readonly checkpoints: string | null;
}

interface Known {
  readonly row: Row;
  readonly fixed: Pick<SeenJob, "spec" | "tenant" | "turnMs">;
}

/** When in its next write a process dies. */
type Death = "before the commit" | "after the commit";

const NO_ACCOUNTS = JSON.stringify({ claim: 0, now: 0, ahead: {} });

/** Connections of one name share a file in memory: one machine at a time. Opening them costs a quarter of a schedule, so they are used again. */
const PATH = "file:/sim?vfs=memdb";
const spare: Database[] = [];

function opened(): Database {
  return spare.pop() ?? openDatabase(PATH, BYTES_MAX);
}

export class SimMachine {
  readonly artefacts = ARTEFACTS;
  readonly disk: SimDisk;
  onChange: (change: Change) => void = () => undefined;
  readonly #world: World;
  readonly #own: Database;
  readonly #jobs: ReturnType<Database["prepare"]>;
  readonly #known = new Map<string, Known>();
  readonly #open: Database[] = [];
  readonly #deaths = new Map<SimProcess, Death>();
  #heldUntilMs = 0;

  constructor(world: World, slowMs: () => number) {
    this.#world = world;
    this.disk = new SimDisk(world, ARTEFACTS, slowMs);
    this.#own = opened();
    this.#jobs = this.#own.prepare(JOBS);
  }

  /** A connection of `process`. Throws what opening the file throws. */
  connect(process: SimProcess): Database {
    if (this.#isHeld) throw new MoevieError("PEER_UNAVAILABLE", "The job store is busy; try again.");
    const db = opened();
    this.#open.push(db);
    const exec = db.exec.bind(db);
    db.exec = (sql) => {
      if (sql === "COMMIT") return this.#commit(process, exec);
      if (sql === "BEGIN IMMEDIATE" && this.#isHeld) throw sqliteError(SQLITE_BUSY, "database is locked");
      exec(sql);
    };
    return db;
  }

  /** Everything on it is gone. */
  close(): void {
    this.#own.exec("DELETE FROM jobs; DELETE FROM sqlite_sequence;");
    for (const db of this.#open) Reflect.deleteProperty(db, "exec");
    spare.push(...this.#open, this.#own);
  }

  /** Until when somebody else holds the file for writing. */
  get heldUntilMs(): number {
    return this.#heldUntilMs;
  }

  get #isHeld(): boolean {
    return this.#heldUntilMs > this.#world.nowMs;
  }

  /** Nobody else can write for so long: a transaction is open whose process does not go on. */
  hold(ms: number): void {
    this.#heldUntilMs = Math.max(this.#heldUntilMs, this.#world.nowMs + ms);
  }

  /** The process dies in the middle of its next write. */
  dieInWrite(process: SimProcess): Death {
    const death = this.#world.chance(0.5) ? "before the commit" : "after the commit";
    this.#deaths.set(process, death);
    return death;
  }

  /** Changes the record of a job, as no code of the store would. */
  force(writer: SimProcess, id: string, { state, checkpoint, attempts = 0, isUncharged = false }: Forced): void {
    const number = this.#known.get(id)?.row.number;
    if (number === undefined) return;
    const run = (sql: string, ...values: (string | number)[]): void => void this.#own.prepare(sql).run(...values);
    if (state !== undefined) {
      run("UPDATE jobs SET state = ?, state_json = ? WHERE number = ?", state.kind, JSON.stringify(state), number);
      if ("token" in state) run("UPDATE jobs SET token = ? WHERE number = ?", state.token, number);
      run("INSERT INTO events (job, body_json) VALUES (?, ?)", number, JSON.stringify({ state: state.kind }));
    }
    if (isUncharged) run("UPDATE jobs SET accounts_json = ? WHERE number = ?", NO_ACCOUNTS, number);
    run("UPDATE jobs SET attempt = attempt + ? WHERE number = ?", attempts, number);
    if (checkpoint !== undefined)
      run("INSERT INTO checkpoints (job, name, size_bytes, sha256) VALUES (?, ?, 1, '')", number, checkpoint);
    this.look(writer);
  }

  clipSha256(id: string, token: number): string | undefined {
    const clip = this.disk.durable(`${ARTEFACTS}/${id}/${token}.mp4`);
    return clip && createHash("sha256").update(clip).digest("hex");
  }

  /** States that the events of a job tell of, in order. */
  eventStates(id: string): readonly string[] {
    const query = `SELECT body_json ->> '$.state' AS state FROM events JOIN jobs ON jobs.number = events.job
      WHERE jobs.id = ? ORDER BY sequence`;
    return this.#own
      .prepare(query)
      .all(id)
      .map(({ state }) => String(state));
  }

  /** Tells of what is other than at the last look; `writer` did it. */
  look(writer: SimProcess): void {
    const rows = this.#jobs.all() as unknown as readonly Row[];
    for (const row of rows) {
      const before = this.#known.get(row.id);
      if (before !== undefined && isSame(before.row, row)) continue;
      const fixed = before?.fixed ?? (JSON.parse(row.record) as Known["fixed"]);
      this.#known.set(row.id, { row, fixed });
      const { spec, tenant, turnMs } = fixed;
      const { attempt, events } = row;
      const state = JSON.parse(row.state) as JobState;
      const checkpoints = row.checkpoints?.split(" ") ?? [];
      const after = { spec, tenant, turnMs, state, attempt, events, checkpoints };
      const tokenDue = (before?.row.token ?? 0) + 1;
      this.onChange({ writer, id: row.id, after, isFirst: before === undefined, tokenDue });
    }
    if (rows.length < this.#known.size) this.#forget(writer, rows);
  }

  #forget(writer: SimProcess, rows: readonly Row[]): void {
    const there = new Set(rows.map(({ id }) => id));
    for (const id of this.#known.keys()) {
      if (there.has(id)) continue;
      this.#known.delete(id);
      this.onChange({ writer, id, after: undefined, isFirst: false, tokenDue: 0 });
    }
  }

  #commit(process: SimProcess, exec: (sql: string) => void): void {
    const death = this.#deaths.get(process);
    this.#deaths.delete(process);
    if (death === "before the commit") {
      process.kill();
      exec("ROLLBACK");
      throw new Error("the process is dead");
    }
    if (this.disk.isFull && this.#world.chance(FULL_SHARE)) {
      // SQLite may end the transaction itself.
      if (this.#world.chance(0.5)) exec("ROLLBACK");
      throw sqliteError(SQLITE_FULL, "database or disk is full");
    }
    exec("COMMIT");
    this.look(process);
    if (death === "after the commit") process.kill();
  }
}

function sqliteError(errcode: number, message: string): Error {
  return Object.assign(new Error(message), { errcode });
}

function isSame(one: Row, other: Row): boolean {
  return (
    one.revision === other.revision &&
    one.events === other.events &&
    one.token === other.token &&
    one.attempt === other.attempt &&
    one.checkpoints === other.checkpoints &&
    one.state === other.state
  );
}
