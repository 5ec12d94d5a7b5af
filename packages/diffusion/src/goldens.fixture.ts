// Reads the recorded schedules and trajectories of testdata/ for tests. Fixture only: no product code may import it.
import { readFileSync } from "node:fs";

export interface GoldenSchedule {
  readonly kind: "unipc" | "flow_match_euler" | "unipc_reference_grid";
  readonly num_steps: number;
  readonly shift: number;
  readonly sigmas: readonly number[];
  readonly timesteps: readonly number[];
  readonly high_noise_steps: number;
  readonly samples: string | null;
}

interface GoldenFile {
  readonly schedules: readonly GoldenSchedule[];
  readonly distilled_4_step: { readonly sigmas: readonly number[] };
}

const FOLDER = new URL("../testdata/", import.meta.url);

export const GOLDEN = JSON.parse(readFileSync(new URL("scheduler.json", FOLDER), "utf8")) as GoldenFile;

/** Trajectories of diffusers 0.42.1's DPM++ multistep (flow prediction, order 2, midpoint) with the same fixed velocity. */
export const DPMPP = JSON.parse(readFileSync(new URL("dpmpp.json", FOLDER), "utf8")) as readonly {
  readonly steps: number;
  readonly shift: number;
  readonly sigmas: readonly number[];
  readonly samples: readonly (readonly number[])[];
}[];

const file = readFileSync(new URL("scheduler.safetensors", FOLDER));
const headerBytes = Number(file.readBigUInt64LE(0));
const header = JSON.parse(file.toString("utf8", 8, 8 + headerBytes)) as Record<
  string,
  { readonly data_offsets: readonly [number, number] }
>;

/** A recorded f32 tensor, flat. */
export function golden(name: string): Float32Array {
  const entry = header[name];
  if (entry === undefined) throw new Error(`no tensor ${name} in scheduler.safetensors`);
  const [begin, end] = entry.data_offsets;
  return new Float32Array(new Uint8Array(file.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer);
}

/** Largest absolute difference of two equally long lists. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs((a[i] ?? NaN) - (b[i] ?? NaN)));
  return largest;
}
