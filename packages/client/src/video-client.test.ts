// The client by itself: numbers that the wire would change are refused.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { VideoClient } from "./video-client.ts";

const NOBODY = "127.0.0.1:1";

describe("a number that the wire would change is refused before it is sent", () => {
  let client: VideoClient;
  beforeEach(() => {
    client = new VideoClient(NOBODY);
  });
  afterEach(() => client.close());

  test.each([
    ["seed", -1, "a whole number from 0 to 9007199254740991 (2^53 - 1)"],
    ["seed", 1.5, "a whole number from 0 to 9007199254740991 (2^53 - 1)"],
    ["seed", Number.NaN, "a whole number from 0 to 9007199254740991 (2^53 - 1)"],
    ["seed", 2 ** 53, "a whole number from 0 to 9007199254740991 (2^53 - 1)"],
    ["fps", 2 ** 32 + 24, "a whole number from 1 to 60"],
    ["steps", 12.5, "a whole number from 1 to 100"],
    ["seconds", 0, "a number above 0, at most 30"],
    ["guidance", Number.POSITIVE_INFINITY, "a number from 0 to 20; 1 or less runs without guidance"],
  ])("%s %d", async (field, value, allowed) => {
    await expect(client.createVideo({ prompt: "a dog", [field]: value })).rejects.toMatchObject({
      reason: "INVALID_FIELD",
      message: `spec.${field} is ${value}; allowed: ${allowed}`,
      violations: [{ field: `spec.${field}`, description: `is ${value}; allowed: ${allowed}` }],
    });
  });

  test("a quality the wire does not know", async () => {
    await expect(client.createVideo({ prompt: "a dog", quality: "draft" as never })).rejects.toMatchObject({
      message: 'spec.quality is "draft"; allowed: QUALITY_STANDARD, QUALITY_DRAFT',
    });
  });

  test("all of a spec's at once, and those of the other calls", async () => {
    const both = await client.createVideo({ seed: -1, steps: 0 }).catch((thrown: unknown) => thrown);
    expect(both).toMatchObject({ violations: [{ field: "spec.seed" }, { field: "spec.steps" }] });
    for (const pageSize of [-1, 1.5, Number.NaN, 2 ** 31])
      await expect(client.listVideos({ pageSize })).rejects.toMatchObject({ violations: [{ field: "page_size" }] });
    for (const waitMs of [-1, Number.NaN, Number.POSITIVE_INFINITY])
      await expect(client.waitOperation("videos/x", waitMs)).rejects.toMatchObject({
        message: `timeout is ${waitMs}; allowed: a number from 0 to 3600000 ms`,
      });
  });
});
