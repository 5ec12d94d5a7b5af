// What the processes of a cluster hold of a bundle's weights, in lines for people.
import type { BundleSummary } from "@moevie/bundle";
import { shownBytes } from "./shown-bytes.ts";

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
