// A summary of a bundle for people and for `inspect`: sizes, memory and graphs. Makes no sessions.
import { isNoiseDenoiser, type GraphValue, type Manifest, type Variant } from "./manifest.ts";
import type { Bundle } from "./open-bundle.ts";

export type BundleSummary = {
  readonly name: string;
  readonly architecture: string;
  readonly digest: string;
  readonly precision: Manifest["precision"];
  readonly variants: Readonly<Record<string, Variant>>;
  readonly parameters: Readonly<Record<string, number>>;
  /** Bytes on disk, by file. */
  readonly fileBytes: Readonly<Record<string, number>>;
  readonly totalBytes: number;
  readonly graphs: Readonly<Record<string, GraphSummary>>;
  readonly services: readonly ServiceSummary[];
};
export type GraphSummary = {
  /** Weights one session of the graph keeps in memory. */
  readonly weightBytesPerSession: number;
  readonly inputs: readonly GraphValue[];
  readonly outputs: readonly GraphValue[];
};
/** What one process keeps of the weights. */
type ServiceSummary = { readonly service: string; readonly holds: string; readonly weightBytes: number };

const F32_BYTES = 4;
const HALF_BYTES = 2;

/** Bytes that a session of graph `name` keeps of each weight. */
function weightBytes({ precision, denoiser }: Manifest, name: string): number {
  if (name.endsWith(".f32")) return F32_BYTES;
  const halved = isNoiseDenoiser(denoiser) && denoiser.graphs.some((graph) => name.startsWith(graph));
  const half = (halved && precision !== "f32") || (name === "text-encoder" && precision === "bf16");
  return half ? HALF_BYTES : F32_BYTES;
}

function servicesOf(
  { denoiser, variants, graphs: entries }: Manifest,
  bytes: (graph: string) => number,
): ServiceSummary[] {
  const sum = (names: readonly string[]): number => names.reduce((total, name) => total + bytes(name), 0);
  const decoding = Object.keys(entries).filter((name) => /^(decoder\.|latent-upsampler)/.test(name));
  const around = [
    { service: "text-encoder", holds: "the text encoder", weightBytes: bytes("text-encoder") },
    { service: "decoder", holds: decoding.join(", "), weightBytes: sum(decoding) },
  ];
  if (isNoiseDenoiser(denoiser)) {
    const shards = denoiser.graphs.map((graph) => ({
      service: "expert-shard",
      holds: graph,
      weightBytes: bytes(graph),
    }));
    return [...around, { service: "router", holds: "none", weightBytes: 0 }, ...shards];
  }
  const { layers, experts, hidden, expertHidden } = denoiser;
  const blocks = Array.from({ length: layers }, (_, i) => `block.${i}`);
  const trunks = Object.values(variants).flatMap(({ graphs }) =>
    ["context", "entry", ...blocks, "head"].map((piece) => graphs + piece),
  );
  const one = F32_BYTES * (2 * hidden * expertHidden + hidden + expertHidden);
  return [
    ...around,
    { service: "router", holds: `trunk of ${Object.keys(variants).join(" and ")}`, weightBytes: sum(trunks) },
    {
      service: "expert-shards together",
      holds: `${experts} experts of ${layers} layers`,
      weightBytes: one * experts * layers,
    },
  ];
}

/** Sizes, memory per session and process, and inputs and outputs of every graph. Throws BundleError. */
export async function inspectBundle(bundle: Bundle): Promise<BundleSummary> {
  const { manifest, digest } = bundle;
  const graphs: Record<string, GraphSummary> = {};
  for (const [name, { inputs, outputs }] of Object.entries(manifest.graphs)) {
    const weightBytesPerSession = weightBytes(manifest, name) * (await bundle.weightElements(name));
    graphs[name] = { weightBytesPerSession, inputs, outputs };
  }
  const fileBytes = Object.fromEntries(manifest.files.map(({ path, bytes }) => [path, bytes]));
  const totalBytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  return {
    name: manifest.name,
    architecture: manifest.architecture,
    digest,
    precision: manifest.precision,
    variants: manifest.variants,
    parameters: manifest.parameters,
    fileBytes,
    totalBytes,
    graphs,
    services: servicesOf(manifest, (name) => graphs[name]?.weightBytesPerSession ?? 0),
  };
}
