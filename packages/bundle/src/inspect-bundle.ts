// A summary of a bundle for people and for `inspect`: sizes, memory and graphs. Makes no sessions.
import type { GraphValue, Variant } from "./manifest.ts";
import type { Bundle } from "./open-bundle.ts";

export type BundleSummary = {
  readonly name: string;
  readonly architecture: string;
  readonly digest: string;
  readonly variants: Readonly<Record<string, Variant>>;
  readonly parameters: Readonly<Record<string, number>>;
  /** Bytes on disk, by file. */
  readonly fileBytes: Readonly<Record<string, number>>;
  readonly totalBytes: number;
  readonly graphs: Readonly<Record<string, GraphSummary>>;
};
export type GraphSummary = {
  /** Weights one session of the graph keeps in memory, as f32. */
  readonly weightBytesPerSession: number;
  readonly inputs: readonly GraphValue[];
  readonly outputs: readonly GraphValue[];
};

/** Sizes, memory per session, and inputs and outputs of every graph. Throws BundleError. */
export async function inspectBundle(bundle: Bundle): Promise<BundleSummary> {
  const { manifest, digest } = bundle;
  const graphs: Record<string, GraphSummary> = {};
  for (const [name, { inputs, outputs }] of Object.entries(manifest.graphs)) {
    graphs[name] = { weightBytesPerSession: 4 * (await bundle.weightElements(name)), inputs, outputs };
  }
  const fileBytes = Object.fromEntries(manifest.files.map(({ path, bytes }) => [path, bytes]));
  const totalBytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  return {
    name: manifest.name,
    architecture: manifest.architecture,
    digest,
    variants: manifest.variants,
    parameters: manifest.parameters,
    fileBytes,
    totalBytes,
    graphs,
  };
}
