// The NATS store's ground: a server, and a link to it for each process that may be cut. The server's disk survives everything.
import type { JobStore } from "@moevie/job-store";
import { decodeJob, startNatsStore } from "@moevie/job-store/parts";
import { LEASE_MS, type Change, type Forced, type Ground, type SeenJob, type Stage } from "./ground.ts";
import type { Mutation } from "./mutation.ts";
import { Link, type Weather } from "./sim-link.ts";
import { simNats } from "./sim-nats.ts";
import { SimServer } from "./sim-server.ts";
import type { StreamMessage } from "./sim-stream.ts";
import type { SimProcess, World } from "./world.ts";

const JOB = /\.job\.([0-9a-f-]{36})$/;

export class NatsGround implements Ground {
  /** Two claims at the same moment may count one job less. */
  readonly ordersExactly = false;
  readonly excuses: ReadonlySet<string> = new Set();
  onChange: (change: Change) => void = () => undefined;
  onFault: (what: string) => void = () => undefined;
  readonly #world: World;
  readonly #server: SimServer;
  readonly #mutation: Mutation | undefined;
  readonly #links = new Map<SimProcess, Link>();

  constructor(world: World, mutation: Mutation | undefined) {
    this.#world = world;
    this.#mutation = mutation;
    this.#server = new SimServer(world);
    this.#server.onRecord = (writer, before, after) => this.#see(writer, before, after);
  }

  open(process: SimProcess, weather: () => Weather): Promise<JobStore> {
    const link = new Link(process, weather);
    this.#links.set(process, link);
    const scene = { world: this.#world, ground: this, process };
    const { clock, nats } = this.#mutation ?? {};
    const parts = simNats(this.#server, link);
    return startNatsStore(nats?.(parts, scene) ?? parts, { clock: clock?.(scene) ?? process.clock });
  }

  troubles(stage: Stage): readonly (() => void)[] {
    return [() => this.#cut(stage), () => this.#cutAll(stage)];
  }

  force(writer: SimProcess, id: string, { state, checkpoint, attempts = 0 }: Forced): void {
    const server = this.#server;
    for (const [subject, message] of server.records.last) {
      if (!subject.endsWith(`.job.${id}`) || message.operation !== undefined) continue;
      const { job } = decodeJob(message.data, message.seq);
      const late = checkpoint === undefined ? [] : [{ name: checkpoint, sizeBytes: 1, sha256: "" }];
      const changed = {
        ...job,
        state: state ?? job.state,
        attempt: job.attempt + attempts,
        checkpoints: [...late, ...job.checkpoints],
        event: state === undefined ? job.event : { ...job.event, number: job.event.number + 1 },
      };
      server.writeRecord(writer, subject, Buffer.from(JSON.stringify(changed)));
      return;
    }
  }

  clipSha256(id: string, token: number): string | undefined {
    for (const { subject, data } of this.#server.files.last.values()) {
      if (!subject.includes(".M.")) continue;
      const info = JSON.parse(Buffer.from(data).toString("utf8")) as { name: string; deleted: boolean; digest: string };
      if (info.name === `${id}/${token}.mp4` && !info.deleted)
        return Buffer.from(info.digest.replace("SHA-256=", ""), "base64url").toString("hex");
    }
    return undefined;
  }

  eventsFault(id: string, { events }: SeenJob): string | undefined {
    const numbers = [...this.#server.events.messages.values()]
      .filter(({ subject }) => subject.endsWith(id))
      .map(({ data }) => (JSON.parse(Buffer.from(data).toString("utf8")) as { number: number }).number);
    // The last may wait for a reader to add it.
    const isWhole = numbers.every((number, at) => number === at + 1) && [events - 1, events].includes(numbers.length);
    return isWhole ? undefined : `its events are ${numbers.join(" ")}, its record is at ${events}`;
  }

  /** A sweep removes them, every half hour. */
  leftOver(): readonly string[] {
    return [];
  }

  close(): void {
    this.#links.clear();
  }

  #see(writer: SimProcess, before: StreamMessage | undefined, message: StreamMessage): void {
    const id = JOB.exec(message.subject)?.[1];
    if (id === undefined) return;
    const isFirst = before === undefined || before.operation !== undefined;
    const change = { writer, id, isFirst, tokenDue: before?.seq ?? 0 };
    if (message.operation !== undefined) return this.onChange({ ...change, after: undefined });
    const { job } = decodeJob(message.data, message.seq);
    const { spec, tenant = "default", state, attempt, checkpoints, event } = job;
    const names = checkpoints.map(({ name }) => name);
    const after = { spec, tenant, turnMs: job.createdAtMs, state, attempt, checkpoints: names, events: event.number };
    this.onChange({ ...change, after });
  }

  #cut({ world, victim }: Stage): void {
    const process = victim();
    const ms = world.between(20, 3 * LEASE_MS);
    world.tell(`${process.name} is cut off for ${ms.toFixed(0)} ms`);
    this.#links.get(process)?.cut(ms);
  }

  /** The server is killed and started again: its disk stays. */
  #cutAll({ world, processes }: Stage): void {
    const ms = world.between(20, 1.5 * LEASE_MS);
    world.tell(`the server is away for ${ms.toFixed(0)} ms`);
    for (const process of processes()) this.#links.get(process)?.cut(ms + world.between(0, 100));
  }
}
