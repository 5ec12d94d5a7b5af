// Who shares a batch, how long a call waits for others, and what becomes of a batch that fails.
import { MoevieError } from "@moevie/contracts";
import { Metrics } from "@moevie/runtime";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Batches } from "./batches.ts";
import type { DenoiseInput, DenoiseOutput } from "./denoise.ts";

const TOOK_MS = 40;

const rowsOf = ([, ...sizes]: readonly number[]): number => sizes.reduce((a, b) => a * b);
const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    setTimeout(() => (signal.aborted ? reject(new Error("over")) : resolve()), ms);
  });

/** Batches that take TOOK_MS each; the timesteps of every batch that ran. */
function batches(fail: (timesteps: number[]) => MoevieError | undefined = () => undefined): {
  subject: Batches;
  ran: number[][];
} {
  const ran: number[][] = [];
  const run = async (inputs: readonly DenoiseInput[]): Promise<DenoiseOutput[]> => {
    const timesteps = inputs.map(({ timestep }) => timestep);
    ran.push(timesteps);
    await new Promise((resolve) => setTimeout(resolve, TOOK_MS));
    const error = fail(timesteps);
    if (error !== undefined) throw error;
    const times = { trunkUs: 0, exchangeWaitUs: 0, hiddenUs: 0, totalUs: 0 };
    return inputs.map(({ timestep }) => ({ velocity: Float32Array.of(timestep), ...times }));
  };
  const metrics = new Metrics("router");
  return { subject: new Batches({ run, rowsOf, batchMax: () => 3, branchRowsMin: 32, pause, metrics }), ran };
}

function input(timestep: number, more: Partial<DenoiseInput> = {}): DenoiseInput {
  const shape = [1, 1, 8, 8];
  const context = { ctx: new Float32Array(8), tokens: 4, pooled: new Float32Array(2) };
  const signal = new AbortController().signal;
  const latent = new Float32Array(64);
  const rest = { graphs: "", origin: 0, branch: 1, endMs: Infinity, traceparent: undefined };
  return { ...rest, latent, shape, context, signal, timestep, ...more };
}

/** Few rows. */
const few = (branch: number): Partial<DenoiseInput> => ({ shape: [1, 1, 4, 4], branch });

/** What all settle to, while time goes on no longer than it takes. */
async function settled<T>(outputs: readonly Promise<T>[]): Promise<PromiseSettledResult<T>[]> {
  const over = new AbortController();
  const all = Promise.allSettled(outputs).finally(() => over.abort());
  await vi.advanceTimersByTimeAsync(0);
  for (let ms = 0; !over.signal.aborted && ms < 10 * TOOK_MS; ms++) await vi.advanceTimersByTimeAsync(1);
  return all;
}

async function values(...outputs: readonly Promise<DenoiseOutput>[]): Promise<(number | undefined)[]> {
  const all = await settled(outputs);
  return all.map((one) => (one.status === "fulfilled" ? one.value.velocity[0] : undefined));
}

/** One evaluation of each caller, side by side, so that they and the time they take are known. */
async function known(subject: Batches, callers: readonly object[], more: Partial<DenoiseInput>[] = []): Promise<void> {
  await values(...callers.map((caller, at) => subject.run(input(0, more[at]), caller)));
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a caller alone waits for nobody", async () => {
  const { subject, ran } = batches();
  const caller = {};
  for (const timestep of [3, 2, 1]) {
    const output = subject.run(input(timestep), caller);
    expect(ran.at(-1)).toEqual([timestep]);
    expect(await values(output)).toEqual([timestep]);
  }
});

test("callers that are about to ask are waited for, a tenth of an evaluation at most, and get answers of their own", async () => {
  const { subject, ran } = batches();
  const [a, b] = [{}, {}];
  await known(subject, [a, b]);
  const first = subject.run(input(7), a);
  expect(ran).toHaveLength(2);
  const second = subject.run(input(8), b);
  expect(ran.at(-1)).toEqual([7, 8]);
  expect(await values(first, second)).toEqual([7, 8]);
  const alone = subject.run(input(9), a);
  await vi.advanceTimersByTimeAsync(TOOK_MS * 0.1 - 1);
  expect(ran).toHaveLength(3);
  await vi.advanceTimersByTimeAsync(2);
  expect(ran.at(-1)).toEqual([9]);
  expect(await values(alone)).toEqual([9]);
  subject.leave(b);
  const last = subject.run(input(10), a);
  expect(ran.at(-1)).toEqual([10]);
  expect(await values(last)).toEqual([10]);
});

test("other shapes, variants, origins and, with many rows, branches run apart; a batch has its most", async () => {
  const { subject, ran } = batches();
  const callers = Array.from({ length: 8 }, () => ({}));
  const asked = [{}, { shape: [1, 2, 8, 8] }, { graphs: "draft." }, { origin: 3 }, { branch: 2 }, {}, {}, {}];
  await known(subject, callers, asked);
  ran.length = 0;
  const outputs = callers.map((caller, at) => subject.run(input(at, asked[at]), caller));
  expect(await values(...outputs)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(ran.toSorted(([one = 0], [other = 0]) => one - other)).toEqual([[0, 5, 6], [1], [2], [3], [4], [7]]);
});

test("with few rows both branches are one batch", async () => {
  const { subject, ran } = batches();
  const [a, b] = [{}, {}];
  await known(subject, [a, b], [few(1), few(2)]);
  await values(subject.run(input(5, few(1)), a), subject.run(input(6, few(2)), b));
  expect(ran.at(-1)).toEqual([5, 6]);
});

test("a batch for which there is no room runs one by one: only what is too large by itself fails", async () => {
  const { subject, ran } = batches((timesteps) =>
    timesteps.includes(66) ? new MoevieError("OUT_OF_MEMORY", "needs 9 bytes") : undefined,
  );
  const [a, b] = [{}, {}];
  await known(subject, [a, b]);
  const outcomes = await settled([subject.run(input(66), a), subject.run(input(1), b)]);
  expect(outcomes).toMatchObject([{ reason: { reason: "OUT_OF_MEMORY" } }, { status: "fulfilled" }]);
  expect(ran.slice(2)).toEqual([[66, 1], [66], [1]]);
});

test("an evaluation that is cancelled or late fails alone", async () => {
  const { subject } = batches();
  const callers = [{}, {}, {}];
  await known(subject, callers);
  const gone = new AbortController();
  const asked = [{ signal: gone.signal }, { endMs: performance.now() + 1 }, {}];
  const outputs = asked.map((more, at) => subject.run(input(at, more), callers[at]!));
  gone.abort();
  expect(await settled(outputs)).toMatchObject([
    { reason: { reason: "CANCELLED" } },
    { reason: { reason: "DEADLINE" } },
    { status: "fulfilled" },
  ]);
});
