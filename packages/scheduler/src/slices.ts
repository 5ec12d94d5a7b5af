// Arithmetic on a latent in slices: a large one would else hold up heartbeats and streams for seconds.
import { limit } from "@moevie/contracts";
import { turn } from "@moevie/runtime";

/** Calls `work` for ranges that cover 0 to `values` in order; between two, whatever waits in this process has its turn. */
export async function inSlices(values: number, work: (start: number, end: number) => void): Promise<void> {
  const sliceValues = limit("sliceValuesMax");
  for (let start = 0; start < values; start += sliceValues) {
    if (start > 0) await turn();
    work(start, Math.min(start + sliceValues, values));
  }
}
