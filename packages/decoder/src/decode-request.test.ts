// Holds what a Decode call may ask for: every refusal names its field.
import { describe, expect, test } from "vitest";
import type { DecodeHead, DecodeRequest, ElementType } from "@moevie/contracts";
import { readDecodeRequest, type ServedModel } from "./decode-request.ts";

const model: ServedModel = {
  digest: "d1",
  frameRate: 8,
  steadyLevels: 10,
  channels: 2,
  temporalStride: 4,
  pixelsPerCell: 8,
};
const BYTES = 2 * 5 * 2 * 3 * 4;

function head(changes: Partial<DecodeHead> = {}): DecodeHead {
  const latent = { elementType: "ELEMENT_TYPE_F32" as ElementType, shape: [2, 5, 2, 3] };
  const clip = { width: 640, height: 368, fps: 24, frameCount: 48, comment: "", colorCorrection: true, saveFrames: "" };
  return { bundleDigest: "d1", latent, ...clip, ...changes };
}

async function* sent(...parts: (DecodeHead | Buffer)[]): AsyncGenerator<DecodeRequest, void> {
  for (const part of parts) yield Buffer.isBuffer(part) ? { chunk: part } : { head: part };
}

const refusal = (...parts: (DecodeHead | Buffer)[]): Promise<unknown> =>
  readDecodeRequest(sent(...parts), model).then(
    () => "accepted",
    (thrown: unknown) => thrown,
  );

const shape = (...sizes: number[]): Partial<DecodeHead> => ({
  latent: { elementType: "ELEMENT_TYPE_F32", shape: sizes },
});

describe("a Decode request", () => {
  test("is put together from chunks of any size", async () => {
    const values = Float32Array.from({ length: BYTES / 4 }, (_, i) => i / 7);
    const bytes = Buffer.from(values.buffer);
    const request = await readDecodeRequest(sent(head(), bytes.subarray(0, 33), bytes.subarray(33)), model);
    expect([...request.latent.values]).toEqual([...values]);
    expect(request).toMatchObject({
      latent: { shape: [2, 5, 2, 3] },
      from: { width: 24, height: 16, fps: 8 },
      to: { width: 640, height: 368, fps: 24 },
      frameCount: 48,
      comment: "",
    });
  });

  test("may carry half-precision values", async () => {
    const ones = Buffer.from(new Uint16Array(BYTES / 4).fill(0x3c00).buffer);
    const asF16 = head({ latent: { elementType: "ELEMENT_TYPE_F16", shape: [2, 5, 2, 3] } });
    const request = await readDecodeRequest(sent(asF16, ones), model);
    expect(request.latent.values.every((value) => value === 1)).toBe(true);
  });

  test("for another bundle is BUNDLE_MISMATCH", async () => {
    expect(await refusal(head({ bundleDigest: "d2" }))).toMatchObject({ reason: "BUNDLE_MISMATCH" });
  });

  test.each<[string, Partial<DecodeHead>, string]>([
    ["with other channels", shape(3, 5, 2, 3), "head.latent.shape"],
    ["with a missing axis", shape(2, 5, 2), "head.latent.shape"],
    ["with an empty axis", shape(2, 5, 0, 3), "head.latent.shape"],
    ["with a latent too large", shape(2, 5, 1 << 14, 1 << 14), "head.latent.shape"],
    ["without a latent", { latent: null }, "head.latent.element_type"],
    ["too wide", { width: 4096 }, "head.width"],
    ["with an odd height", { height: 367 }, "head.height"],
    ["with no rate", { fps: 0 }, "head.fps"],
    ["with too high a rate", { fps: 61 }, "head.fps"],
    ["with a long comment", { comment: "x".repeat(1001) }, "head.comment"],
    ["for no frames", { frameCount: 0 }, "head.frame_count"],
    ["for more frames than the latent covers", { frameCount: 52 }, "head.frame_count"],
  ])("%s is INVALID_FIELD and names the field", async (_, changes, field) => {
    const violations = expect.arrayContaining([expect.objectContaining({ field })]) as unknown;
    expect(await refusal(head(changes), Buffer.alloc(BYTES))).toMatchObject({ reason: "INVALID_FIELD", violations });
  });

  test.each<[string, (DecodeHead | Buffer)[]]>([
    ["cut short", [head(), Buffer.alloc(BYTES - 1)]],
    ["too long", [head(), Buffer.alloc(BYTES), Buffer.alloc(1)]],
    ["without a head", [Buffer.alloc(4)]],
    ["empty", []],
    ["with two heads", [head(), head()]],
  ])("%s is INVALID_FIELD", async (_, parts) => {
    expect(await refusal(...parts)).toMatchObject({ reason: "INVALID_FIELD" });
  });
});
