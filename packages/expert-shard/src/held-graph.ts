// Graphs of experts and the threads they run in. A graph is loaded where nothing else runs, so that no call waits for a load, and unloaded
// after its last call. Knows no layer and no expert.
import { OnnxThread } from "@moevie/runtime";
import type { OnnxThreadOptions } from "@moevie/runtime";

/** Who keeps something of its own for a graph, and drops it with the graph. */
export interface GraphKeeper {
  drop(graph: HeldGraph): void;
}

/** A loaded graph: in use, then retired, then gone, once no call uses it any more. */
export class HeldGraph {
  readonly thread: OnnxThread;
  /** Its name in the thread. */
  readonly key: string;
  readonly keepers = new Set<GraphKeeper>();
  readonly #gone: (graph: HeldGraph) => void;
  #calls = 0;
  #retired = false;

  constructor(thread: OnnxThread, key: string, gone: (graph: HeldGraph) => void) {
    this.thread = thread;
    this.key = key;
    this.#gone = gone;
  }

  /** A call that is to be answered by this graph. To be ended by `done`. */
  use(): void {
    this.#calls++;
  }

  done(): void {
    this.#calls--;
    this.#leave();
  }

  /** New calls go elsewhere. */
  retire(): void {
    this.#retired = true;
    this.#leave();
  }

  #leave(): void {
    if (!this.#retired || this.#calls > 0) return;
    for (const keeper of this.keepers) keeper.drop(this);
    this.#gone(this);
  }
}

/** The threads of one device. A thread whose last graph is gone is kept for the next load; there is at most one such. */
export class GraphThreads {
  readonly #options: OnnxThreadOptions;
  readonly #graphs = new Map<OnnxThread, number>();
  #spare: OnnxThread | undefined;
  #nextKey = 1;

  constructor(options: OnnxThreadOptions) {
    this.#options = options;
  }

  /** A thread in which nothing runs. Throws nothing: the device is checked by the first load. */
  open(): OnnxThread {
    const thread = this.#spare ?? OnnxThread.start(this.#options);
    this.#spare = undefined;
    this.#graphs.set(thread, 0);
    return thread;
  }

  /** Loads ModelProto bytes, in `thread` if it is given. Throws BUNDLE_CORRUPT, UNSUPPORTED, DEVICE_MISSING or OUT_OF_MEMORY. */
  async load(model: Uint8Array, thread: OnnxThread = this.open()): Promise<HeldGraph> {
    const key = `experts.${this.#nextKey++}`;
    this.#count(thread, 1);
    try {
      await thread.load(key, model);
    } catch (thrown) {
      this.#count(thread, -1);
      throw thrown;
    }
    return new HeldGraph(thread, key, (graph) => {
      // A thread that is closed has no graphs any more.
      graph.thread.unload(graph.key).then(
        () => this.#count(graph.thread, -1),
        () => undefined,
      );
    });
  }

  async close(): Promise<void> {
    const threads = [...this.#graphs.keys(), ...(this.#spare === undefined ? [] : [this.#spare])];
    this.#graphs.clear();
    await Promise.all(threads.map((thread) => thread.close()));
  }

  #count(thread: OnnxThread, change: number): void {
    const graphs = (this.#graphs.get(thread) ?? 0) + change;
    this.#graphs.set(thread, graphs);
    if (graphs > 0) return;
    this.#graphs.delete(thread);
    if (this.#spare === undefined) this.#spare = thread;
    else void thread.close();
  }
}
