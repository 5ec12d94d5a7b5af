// The one check of how large what a store keeps may be.
import { MoevieError } from "@moevie/contracts";

/** Throws OUT_OF_MEMORY that names the bytes. */
export function bounded(what: string, bytes: number, bytesMax: number): void {
  if (bytes > bytesMax)
    throw new MoevieError("OUT_OF_MEMORY", `The ${what} has ${bytes} bytes; at most ${bytesMax} are kept.`);
}
