// What tests of the exchange ask and how a shard of identities answers.
import { MoevieError } from "@moevie/contracts";
import { expect } from "vitest";
import { dispatch, weightedPartial, WireType } from "./index.ts";
import type { ExchangeHandler, ExchangeOptions, ExpertRows, ShardWork } from "./index.ts";

export const d = 8;
export const holds = {
  digest: "sha256:test",
  epoch: 4,
  slots: [0, 1, 2].map((expert) => ({ layer: 0, expert, slot: expert })),
};
export const source = Float32Array.from({ length: 20 * d }, (_, at) => Math.sin(at));
const choice = {
  ids: Int32Array.from({ length: 40 }, (_, at) => at % 3),
  weights: new Float32Array(40).fill(0.5),
  k: 2,
};
const work = dispatch(choice, {
  shardOf: new Int32Array(choice.ids.length),
  experts: 3,
  shards: 1,
})[0] as ShardWork;

/** Every expert is the identity. */
export const identity: ExchangeHandler = (request) => {
  const answers = new Float32Array(request.csr.rowIndex.length * request.d);
  request.csr.rowIndex.forEach((row, entry) => answers.set(request.rows.subarray(row * d, row * d + d), entry * d));
  const partial = new Float32Array(request.n * request.d);
  weightedPartial(request.csr, answers, request.csr.offsets, request.d, partial);
  return Promise.resolve({ partial, queueUs: 1, computeUs: 2 });
};

/** A call for the work above, or one changed. */
export function request(
  changes: Partial<Omit<ExchangeOptions, "unit" | "csr">> & { csr?: ExpertRows } = {},
): ExchangeOptions {
  const base = { layer: 0, epoch: 4, attempt: 0, branch: 1, source, rows: work.rows, d, csr: work.csr };
  return { ...base, wire: WireType.f32, timeoutMs: 5000, ...changes };
}

/** Why a call failed. */
export async function reasonOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(MoevieError);
  return (error as MoevieError).reason;
}
