// What a bundle's pieces are made of and what the processes of a cluster hold of its weights, in lines for people.
import type { BundleSummary } from "@moevie/bundle";
import { shownBytes } from "./shown-bytes.ts";

/** Parameters of each piece. */
export function parameterLines({ parameters }: Pick<BundleSummary, "parameters">): readonly string[] {
  return [
    "parameters",
    ...Object.entries(parameters).map(([piece, count]) => `  ${count.toLocaleString("en").padStart(16)}  ${piece}`),
  ];
}

export function servicesLines({
  precision,
  services,
}: Pick<BundleSummary, "precision" | "services">): readonly string[] {
  return [
    `memory of weights in each process, the denoiser in ${precision}`,
    ...services.map(
      ({ service, holds, weightBytes }) => `  ${shownBytes(weightBytes).padStart(10)}  ${service}: ${holds}`,
    ),
  ];
}
