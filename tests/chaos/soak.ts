// `moevie soak`: so many faults on a cluster that makes clips, told as they strike; fails when a clip was lost, made twice or came out otherwise.
// Arguments: kills, store, seed. Lines of JSON on stdout: each fault, then the report.
import { SERVICE_NAMES, type StoreKind } from "./chaos-cluster.ts";
import { runChaos } from "./run-chaos.ts";

const [kills = "200", store = "sqlite", seed = "1"] = process.argv.slice(2);
const faultCount = Number(kills);
const options = { store: store as StoreKind, seed: Number(seed), victims: SERVICE_NAMES, copies: false };
const tell = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
const { faults, ...figures } = await runChaos({ ...options, faultCount, clipsMin: 1 }, (fault, index) =>
  tell({ fault: `${index} of ${faultCount}: ${fault}` }),
);
const isSound = figures.wrong.length === 0 && figures.jobs.asked === figures.jobs.stored;
tell({ report: { store, seed: Number(seed), kills: faults.length, isSound, ...figures } });
process.exit(isSound ? 0 : 1);
