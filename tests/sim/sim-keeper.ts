// The thread of a simulated process that keeps its SQLite connection: calls come to it in order and are answered in order, it looks now and
// then, waits where a real one waits for another's write, and stands still when its process is stopped.
import { SqliteKeeper, SqliteRecords, sent, type KeeperCall, type SqliteParts } from "@moevie/job-store/parts";
import type { SimMachine } from "./sim-machine.ts";
import type { SimProcess } from "./world.ts";

type StartKeeper = SqliteParts["startKeeper"];
type Hear = Parameters<StartKeeper>[0];
type Message = Parameters<Hear>[0];

const OPEN_CALL = 0;
const LOOK_MS = 50;
/** Wait for another's write: half a lease, as storeBusyMsMax is. */
const BUSY_MS_MAX = 400;
const QUEUED_MAX = 100;
const SHARES = { weights: {}, queuedMax: Infinity, runningMax: Infinity };
/** They wait for nobody's write. */
const READS: ReadonlySet<string> = new Set<KeeperCall["method"]>([
  "get",
  "list",
  "checkpoints",
  "eventsAfter",
  "counts",
  "deadCount",
  "filesNeeded",
]);

interface Piece {
  readonly isRead: boolean;
  readonly run: () => void;
}

export interface SimKeeperOptions {
  readonly process: SimProcess;
  readonly machine: SimMachine;
  /** What a message or a piece of work takes. */
  readonly slowMs: () => number;
  readonly clock: SimProcess["clock"];
  /** Hears of errors that the store's code does not know. */
  readonly onFault: (what: string) => void;
  readonly alter: (records: SqliteRecords) => SqliteRecords;
}

export class SimKeeper {
  readonly #of: SimKeeperOptions;
  readonly #pieces: Piece[] = [];
  readonly #answers: Message[] = [];
  readonly #hear: Hear;
  #keeper: SqliteKeeper | undefined;
  #isAtWork = false;

  private constructor(options: SimKeeperOptions, hear: Hear) {
    this.#of = options;
    this.#hear = hear;
  }

  static starter(options: SimKeeperOptions): StartKeeper {
    return (hear) => {
      const thread = new SimKeeper(options, hear);
      thread.#begin({ isRead: false, run: () => thread.#tryToOpen() });
      return (call) => {
        if (call.method === "close") throw new Error("a simulated store is not closed");
        thread.#begin({ isRead: READS.has(call.method), run: () => thread.#keeper?.answer(call) });
      };
    };
  }

  #begin(piece: Piece): void {
    if (!this.#of.process.alive) return;
    this.#pieces.push(piece);
    this.#soon(this.#of.slowMs(), () => this.#goOn());
  }

  #tryToOpen(): void {
    try {
      this.#openFile();
    } catch (thrown) {
      this.#post({ kind: "error", call: OPEN_CALL, error: sent(thrown) });
    }
  }

  #openFile(): void {
    const { process, machine, clock, alter } = this.#of;
    const db = machine.connect(process);
    const records = alter(new SqliteRecords(db, () => clock.wallMs(), QUEUED_MAX, SHARES));
    const post = (message: Message): void => this.#post(message);
    this.#keeper = new SqliteKeeper({ records, retention: undefined, monotonicMs: () => clock.monotonicMs(), post });
    this.#post({ kind: "opened" });
    this.#lookLater();
  }

  #lookLater(): void {
    this.#soon(LOOK_MS, () => {
      this.#pieces.push({ isRead: true, run: () => this.#keeper?.look() });
      this.#goOn();
      this.#lookLater();
    });
  }

  /** The next piece, unless one is under way. */
  #goOn(): void {
    const piece = this.#isAtWork ? undefined : this.#pieces.shift();
    if (piece === undefined) return;
    this.#isAtWork = true;
    this.#work(piece, this.#of.process.world.nowMs);
  }

  #work(piece: Piece, sinceMs: number): void {
    const { process, machine, slowMs } = this.#of;
    const { nowMs } = process.world;
    const waitUntilMs = Math.min(machine.heldUntilMs, sinceMs + BUSY_MS_MAX);
    if (!piece.isRead && waitUntilMs > nowMs) return this.#soon(waitUntilMs - nowMs, () => this.#work(piece, sinceMs));
    piece.run();
    this.#soon(slowMs(), () => {
      this.#isAtWork = false;
      this.#goOn();
    });
  }

  #post(message: Message): void {
    const { process, onFault } = this.#of;
    if (message.kind === "error" && message.error.reason === "INTERNAL" && process.alive)
      onFault(`the store of ${process.name} failed by itself: ${message.error.detail}`);
    this.#answers.push(message);
    this.#soon(this.#of.slowMs(), () => {
      const first = this.#answers.shift();
      if (first !== undefined) this.#hear(first);
    });
  }

  #soon(ms: number, run: () => void): void {
    const { process } = this.#of;
    process.world.after(ms, () => process.deliver(run));
  }
}
