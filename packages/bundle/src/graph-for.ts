// Which form of a graph a device runs. A bundle may have a graph in several: with the runtime's own operators, without them, and in f32.
import type { Manifest } from "./manifest.ts";

/**
 * Name of the form of graph `name` for `device` (cpu, cuda:N, tensorrt:N): TensorRT's parser takes standard operators only, the CPU has no bf16
 * arithmetic. The graph itself where there is no other form of it.
 */
export function graphFor({ graphs }: Pick<Manifest, "graphs">, name: string, device: string): string {
  const form = device.startsWith("tensorrt") ? `${name}.plain` : device.startsWith("cpu") ? `${name}.f32` : name;
  return Object.hasOwn(graphs, form) ? form : name;
}
