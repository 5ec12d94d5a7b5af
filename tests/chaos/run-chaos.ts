// Clips made while a cluster is hurt so many times: what came of them, beside a calm run in the same cluster.
import { ChaosCluster, type ChaosOptions, type Fault } from "./chaos-cluster.ts";
import { faultCosts, type ClipTime, type FaultCost } from "./fault-cost.ts";

const KINDS = 5;
/** Who submit one clip after the other. */
const CLIENTS = 3;

export interface ChaosReport {
  readonly faults: readonly string[];
  /** Clips made among the faults. */
  readonly clips: number;
  /**
   * What is wrong with a clip: its name, how it ended and its sha256 beside the calm one; and with the store after the end: jobs without one
   * event that ends them, files that no record names and that stay.
   */
  readonly wrong: readonly string[];
  /** Files that no record named at the end, which the next start removes. */
  readonly swept: readonly string[];
  /** Jobs that clients asked for, and jobs in the store. */
  readonly jobs: { readonly asked: number; readonly stored: number };
  /** Most times that a job was started. */
  readonly attemptsMax: number;
  /** Of one clip among as many as there are clients. */
  readonly calmMs: number;
  readonly costs: Readonly<Record<string, FaultCost>>;
}

export interface ChaosRun extends ChaosOptions {
  readonly faultCount: number;
  readonly clipsMin: number;
  /** One fault, by its number from 0 on; default: a process or the server, at random. */
  readonly strike?: (cluster: ChaosCluster, index: number) => Promise<Fault>;
}

/** Runs until `faultCount` faults have struck and `clipsMin` clips are made. Throws when something is left behind. */
export async function runChaos(
  { strike = (cluster) => cluster.strike(), ...options }: ChaosRun,
  onFault: (fault: string, index: number) => void = () => undefined,
): Promise<ChaosReport> {
  const cluster = await ChaosCluster.start(options);
  try {
    const calm = new Map<number, string>();
    for (let kind = 0; kind < KINDS; kind++)
      calm.set(kind, (await cluster.makeClip(kind)).artefact?.sha256 ?? `none of kind ${kind}`);
    if (new Set(calm.values()).size !== KINDS) throw new Error("different kinds of clips are the same");
    const calmMs = await calmClipMs(cluster);
    const faults: Fault[] = [];
    const wrong: string[] = [];
    const clips: ClipTime[] = [];
    let attemptsMax = 0;
    const client = async (): Promise<void> => {
      for (let clip = 0; clips.length < options.clipsMin || faults.length < options.faultCount; clip++) {
        const kind = clip % KINDS;
        const fromMs = performance.now();
        const { name, state, artefact, error, attempt } = await cluster.makeClip(kind);
        clips.push({ fromMs, toMs: performance.now() });
        attemptsMax = Math.max(attemptsMax, attempt);
        if (state !== "VIDEO_STATE_COMPLETED" || artefact?.sha256 !== calm.get(kind))
          wrong.push(`${name} of kind ${kind}: ${state}, ${artefact?.sha256 ?? error?.message}, not ${calm.get(kind)}`);
      }
    };
    const chaos = async (): Promise<void> => {
      while (faults.length < options.faultCount) {
        faults.push(await strike(cluster, faults.length));
        onFault(faults.at(-1)?.text ?? "", faults.length);
      }
    };
    await Promise.all([chaos(), ...Array.from({ length: CLIENTS }, client)]);
    const jobs = { asked: cluster.asked, stored: await cluster.jobCount() };
    const books = await cluster.finish();
    return {
      faults: faults.map(({ text }) => text),
      clips: clips.length,
      wrong: [...wrong, ...books.wrong],
      swept: books.swept,
      jobs,
      attemptsMax,
      calmMs: Math.round(calmMs),
      costs: faultCosts(faults, clips, calmMs),
    };
  } finally {
    await cluster.close();
  }
}

/** Median time of a clip when every client makes one and nothing goes wrong. */
async function calmClipMs(cluster: ChaosCluster): Promise<number> {
  const startMs = performance.now();
  const clip = async (_: unknown, client: number): Promise<number> => {
    await cluster.makeClip(client % KINDS);
    return performance.now() - startMs;
  };
  const times = await Promise.all(Array.from({ length: CLIENTS }, clip));
  return times.sort((a, b) => a - b)[Math.floor(CLIENTS / 2)] ?? 0;
}
