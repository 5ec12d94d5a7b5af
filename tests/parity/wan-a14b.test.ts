// The real Wan2.2-T2V-A14B's configurations, names and shapes, with holes for weights: what import writes, and what inspect says of it.
import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CliSession } from "../e2e/cli-session.ts";
import { writeSparseWan } from "../support/sparse-wan-folder.ts";

const WRITTEN_BYTES_MAX = 50e6;
const GIB = 2 ** 30;
let session: CliSession;
let bundle: string;

beforeAll(() => {
  session = new CliSession();
  bundle = join(session.work, "bundle");
  writeSparseWan(join(session.work, "a14b"));
});
afterAll(() => session.close());

test("126 GB are imported in place, and inspect counts them", async () => {
  const imported = await session.run("import", join(session.work, "a14b"), "--out", bundle, "--precision=bf16");
  expect(imported, imported.stderr).toMatchObject({ code: 0 });
  const entries = readdirSync(bundle, { recursive: true, withFileTypes: true });
  const written = entries
    .filter((entry) => entry.isFile())
    .map((entry) => lstatSync(join(entry.parentPath, entry.name)).size)
    .reduce((sum, size) => sum + size, 0);
  expect(written).toBeLessThan(WRITTEN_BYTES_MAX);
  const inspected = await session.run("inspect", bundle, "--json");
  const summary = JSON.parse(inspected.stdout) as {
    readonly parameters: object;
    readonly services: readonly { readonly service: string; readonly holds: string; readonly weightBytes: number }[];
  };
  expect(summary.parameters).toEqual({
    "text-encoder": 5_680_910_336,
    "denoiser.high": 14_288_491_584,
    "denoiser.low": 14_288_491_584,
    "auto-encoder": 126_892_531,
  });
  const shards = summary.services.filter(({ service }) => service === "expert-shard");
  expect(shards.map(({ holds }) => holds)).toEqual(["denoiser.high", "denoiser.low"]);
  // Each expert by itself in bf16, its norms, modulation and biases in f32.
  for (const { weightBytes } of shards) {
    expect(weightBytes / GIB).toBeGreaterThan(26.6);
    expect(weightBytes / GIB).toBeLessThan(27);
  }
  const shown = await session.run("inspect", bundle);
  expect(shown.stdout).toMatch(/14,288,491,584 {2}denoiser\.high/);
  expect(shown.stdout).toMatch(/26\.\d GiB {2}expert-shard: denoiser\.low/);
});
