// Clips made while a cluster is hurt so many times: what came of them, beside a calm run in the same cluster.
import { ChaosCluster, type ChaosOptions } from "./chaos-cluster.ts";

const KINDS = 5;
/** Who submit one clip after the other. */
const CLIENTS = 3;

export interface ChaosReport {
  readonly faults: readonly string[];
  /** Clips made among the faults. */
  readonly clips: number;
  /** What is wrong with a clip: its name, how it ended and its sha256 beside the calm one. */
  readonly wrong: readonly string[];
  /** Jobs that clients asked for, and jobs in the store. */
  readonly jobs: { readonly asked: number; readonly stored: number };
  /** Most times that a job was started. */
  readonly attemptsMax: number;
  readonly calmMsPerClip: number;
  readonly addedMsPerFault: number;
}

export interface ChaosRun extends ChaosOptions {
  readonly faultCount: number;
  readonly clipsMin: number;
  /** One fault, by its number from 0 on; default: a process or the server, at random. */
  readonly strike?: (cluster: ChaosCluster, index: number) => Promise<string>;
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
    const startMs = performance.now();
    await Promise.all(Array.from({ length: CLIENTS }, (_, client) => cluster.makeClip(client % KINDS)));
    const calmMsPerClip = (performance.now() - startMs) / CLIENTS;
    const faults: string[] = [];
    const wrong: string[] = [];
    let [clips, attemptsMax] = [0, 0];
    const wildMs = performance.now();
    const client = async (): Promise<void> => {
      for (let clip = 0; clips < options.clipsMin || faults.length < options.faultCount; clip++) {
        const kind = clip % KINDS;
        const { name, state, artefact, error, attempt } = await cluster.makeClip(kind);
        clips++;
        attemptsMax = Math.max(attemptsMax, attempt);
        if (state !== "VIDEO_STATE_COMPLETED" || artefact?.sha256 !== calm.get(kind))
          wrong.push(`${name} of kind ${kind}: ${state}, ${artefact?.sha256 ?? error?.message}, not ${calm.get(kind)}`);
      }
    };
    const chaos = async (): Promise<void> => {
      while (faults.length < options.faultCount) {
        faults.push(await strike(cluster, faults.length));
        onFault(faults.at(-1) ?? "", faults.length);
      }
    };
    await Promise.all([chaos(), ...Array.from({ length: CLIENTS }, client)]);
    const addedMsPerFault = (performance.now() - wildMs - calmMsPerClip * clips) / options.faultCount;
    const jobs = { asked: cluster.asked, stored: await cluster.jobCount() };
    await cluster.finish();
    return { faults, clips, wrong, jobs, attemptsMax, calmMsPerClip, addedMsPerFault };
  } finally {
    await cluster.close();
  }
}
