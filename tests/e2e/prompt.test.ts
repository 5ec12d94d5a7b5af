// A clip follows its prompt, in what a plain mean of its pixels can tell: time of day, place and the subject's colour, in two
// languages. How well it does beyond that is in the starter model's card.
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CliSession } from "./cli-session.ts";
import { readFrames } from "./probe-clip.ts";

const WIDTH = 320;
const HEIGHT = 256;
/** Levels of 0 to 255 by which a mean must differ to count as another picture: far above what another seed changes. */
const CLEARLY = 15;

let session: CliSession;
let grpc = "";
beforeAll(async () => {
  session = new CliSession();
  const data = join(session.folder, "jobs");
  const server = session.start("serve", "--grpc-port", "0", "--http-port", "0", "--data", data, "--json");
  await server.says(/^\{"grpc".*\}$/m);
  ({ grpc } = JSON.parse(server.stdout) as { grpc: string });
});
afterAll(() => session.close());

/** Every frame of the clip of `prompt` under one seed. */
async function clip(prompt: string): Promise<Uint8Array[]> {
  const to = ["--server", grpc, "--json"];
  const flags = ["--seed", "3", "--size", `${WIDTH}x${HEIGHT}`, "--fps", "8", "--seconds", "2"];
  const { name } = JSON.parse((await session.run("submit", prompt, ...flags, ...to)).stdout) as { name: string };
  expect(await session.run("watch", name, ...to)).toMatchObject({ code: 0 });
  const { path } = JSON.parse((await session.run("download", name, ...to)).stdout) as { path: string };
  return readFrames(path, { width: WIDTH, height: HEIGHT });
}

/** Mean red, green and blue over all frames. */
function meanOf(frames: readonly Uint8Array[]): [number, number, number] {
  const sums: [number, number, number] = [0, 0, 0];
  for (const frame of frames) for (let at = 0; at < frame.length; at++) sums[(at % 3) as 0 | 1 | 2] += frame[at] ?? 0;
  const pixels = (frames.length * (frames[0]?.length ?? 0)) / 3;
  return sums.map((sum) => sum / pixels) as [number, number, number];
}

const brightness = ([red, green, blue]: readonly [number, number, number]): number => (red + green + blue) / 3;

it.each([
  ["English", "a red car in the city by day, from left to right", "a red car in the city at night, from left to right"],
  ["Chinese", "白天，一辆红色汽车在城市里，从左到右", "夜晚，一辆红色汽车在城市里，从左到右"],
])("night is darker than day, in %s", async (_language, day, night) => {
  const [light, dark] = [meanOf(await clip(day)), meanOf(await clip(night))];
  expect(brightness(light)).toBeGreaterThan(brightness(dark) + CLEARLY);
});

it("a meadow is greener than the sea, which is bluer", async () => {
  const meadow = meanOf(await clip("a white ball on the meadow by day, bouncing"));
  const sea = meanOf(await clip("a white boat on the sea by day, from left to right"));
  expect(meadow[1] - meadow[2]).toBeGreaterThan(sea[1] - sea[2] + CLEARLY);
});

it("a red subject makes the clip redder than a blue one", async () => {
  const red = meanOf(await clip("a red ball on the meadow by day, bouncing"));
  const blue = meanOf(await clip("a blue ball on the meadow by day, bouncing"));
  expect(red[0] - red[2]).toBeGreaterThan(blue[0] - blue[2] + CLEARLY);
});
