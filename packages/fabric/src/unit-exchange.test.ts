// Whole denoisers over the exchange: latent, timestep and context there, velocity back, by real sockets; and what is refused.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { decodeUnit, encodeUnit, unitRowsAt } from "./body.ts";
import { FrameKind, UnitType, WireType, frameHeader } from "./frame.ts";
import { connectExchange, serveExchange } from "./index.ts";
import type {
  DenoiserRequest,
  DenoiserUnit,
  ExchangeAnswer,
  ExchangeClient,
  ExchangeOptions,
  ExchangePath,
} from "./index.ts";
import { packRows, unpackRows } from "./wire-rows.ts";

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

const SHAPE = [4, 3, 5, 6] as const;
const [CHANNELS, FRAMES, HEIGHT, WIDTH] = SHAPE;
const N = CHANNELS * FRAMES;
const D = HEIGHT * WIDTH;
const TOKENS = 7;
const latent = Float32Array.from({ length: N * D }, (_, at) => Math.sin(at));
const context = Float32Array.from({ length: TOKENS * 3 }, (_, at) => Math.cos(at));
const unit: DenoiserUnit = { expert: 1, timestep: 857, shape: SHAPE, context, tokens: TOKENS };
const rows = Uint32Array.from({ length: N }, (_, row) => row);
const holds = { digest: "model", epoch: 2, slots: [{ layer: 0, expert: 1, slot: 0 }] };

function request(changes: Partial<Omit<ExchangeOptions, "csr" | "unit">> = {}, asked = unit): ExchangeOptions {
  const base = { layer: 0, epoch: 2, attempt: 0, branch: 2, source: latent, rows, d: D, unit: asked };
  return { ...base, wire: WireType.f32, timeoutMs: 5000, ...changes };
}

async function link(
  handlers: Parameters<typeof serveExchange>[0]["handlers"],
  path: ExchangePath = "tcp",
): Promise<ExchangeClient> {
  const folder = mkdtempSync(join(tmpdir(), "moevie-unit-"));
  cleanups.push(() => rmSync(folder, { recursive: true }));
  const listen = path === "tcp" ? "127.0.0.1:0" : `unix:${join(folder, "shard.sock")}`;
  const segmentFolder = path === "segment" ? folder : undefined;
  const server = await serveExchange({ listen, holds, handlers, segmentFolder });
  cleanups.push(() => server.close(0));
  const ready = Promise.withResolvers<void>();
  const onChange = (): void => {
    if (client.path === path) ready.resolve();
  };
  const client = connectExchange(server.address, { onChange, segmentFolder });
  cleanups.push(() => client.close());
  await ready.promise;
  return client;
}

/** What is left of values that cross in `type`. */
function roundTo(type: WireType, values: Float32Array): Float32Array {
  const packed = new ArrayBuffer(values.length * 4);
  packRows(values, type, packed, 0);
  const out = new Float32Array(values.length);
  if (type === WireType.f32) return new Float32Array(packed);
  unpackRows(packed, 0, type, values.length, out);
  return out;
}

/** The velocity is the latent plus its context's first value plus the timestep. */
const denoiser = ({ rows: values, unit: asked }: DenoiserRequest): Promise<ExchangeAnswer> =>
  Promise.resolve({
    partial: values.map((value) => value + (asked.context[0] ?? NaN) + asked.timestep),
    queueUs: 3,
    computeUs: 4,
  });

describe("a whole denoiser", () => {
  test.each(["tcp", "unix", "segment"] as const)("is the same by %s in every element type", async (path) => {
    const client = await link({ denoiser }, path);
    for (const wire of [WireType.f32, WireType.f16, WireType.bf16]) {
      const { partial, release } = await client.exchange(request({ wire }));
      const sent = roundTo(wire, latent);
      const answered = roundTo(
        wire,
        sent.map((value) => value + (context[0] ?? NaN) + 857),
      );
      expect([...partial]).toEqual([...answered]);
      release();
    }
  });

  test("gets latent, timestep and context as they are, and its velocity comes back", async () => {
    const seen: DenoiserRequest[] = [];
    const client = await link({
      denoiser: (call) => {
        seen.push({ ...call, unit: { ...call.unit, context: call.unit.context.slice() } });
        return denoiser(call);
      },
    });
    const answer = await client.exchange(request());
    expect(answer.partial).toEqual(latent.map((value) => value + 1 + 857));
    expect(seen[0]).toMatchObject({ n: N, d: D, branch: 2, unit });
    answer.release();
  });

  test("answers in the element type asked for", async () => {
    const client = await link({ denoiser });
    const { partial } = await client.exchange(request({ wire: WireType.bf16 }));
    expect(Math.abs((partial[5] ?? 0) - (latent[5] ?? 0) - 858)).toBeLessThan(858 / 128);
  });

  test("is not hurried by what other exchanges took", async () => {
    let slow = false;
    const client = await link({
      denoiser: async (call) => {
        if (slow) await new Promise((resolve) => setTimeout(resolve, 600));
        return denoiser(call);
      },
    });
    for (let call = 0; call < 20; call++) (await client.exchange(request())).release();
    slow = true;
    expect((await client.exchange(request())).partial.length).toBe(N * D);
    await expect(client.exchange(request({ timeoutMs: 100 }))).rejects.toMatchObject({ reason: "DEADLINE" });
  });

  test("is refused where experts work on rows, is not held, or is larger than a frame", async () => {
    const client = await link({ rows: () => Promise.reject(new Error("not asked")) });
    await expect(client.exchange(request())).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      message: expect.stringContaining("work on rows") as string,
    });
    await expect(client.exchange(request({}, { ...unit, expert: 0 }))).rejects.toMatchObject({
      reason: "EXPERT_MISSING",
    });
    const large = { ...unit, context: new Float32Array(17_000_000) };
    await expect(client.exchange(request({}, large))).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      message: expect.stringMatching(/is above 67108864/) as string,
    });
  });

  test.each<[string, Partial<DenoiserUnit>]>([
    ["sizes that are not the rows'", { shape: [4, 3, 5, 7] }],
    ["sizes that are no whole numbers", { shape: [4.5, 3, 5, 6] }],
    ["no tokens", { tokens: 0 }],
    ["tokens that do not divide the context", { tokens: 4 }],
    ["a timestep that is no number", { timestep: Number.NaN }],
  ])("with %s is refused", (_, changes) => {
    const body = new ArrayBuffer(unitRowsAt(context.length));
    encodeUnit({ ...unit, ...changes }, body, 0);
    const fields = { unit: UnitType.denoiser, n: N, d: D, entries: context.length, experts: 1 };
    expect(() => decodeUnit(frameHeader(FrameKind.request, fields), body)).toThrow(/exchange unit/);
  });
});
