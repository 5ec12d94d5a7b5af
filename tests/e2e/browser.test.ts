// Finished clips as a browser has them: size, length, every frame where it belongs, and the colours that the file was given.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startBrowser } from "./browser.ts";
import { CliSession } from "./cli-session.ts";
import { PLAYS_ANYWHERE, probeClip, readFrames } from "./probe-clip.ts";

/**
 * Levels of 255 that the mean colour of a cell may differ by, red, green, blue. Chromium's converter has 2.0 for the 2.11 that BT.709
 * gives blue (its coefficients are signed bytes), so strong blue comes out a few levels darker; with BT.601's matrix green would be off
 * by ten and more.
 */
const LEVELS = [1, 1, 6] as const;
const CELLS = 8;

interface SeenClip {
  readonly width: number;
  readonly height: number;
  readonly seconds: number;
  /** Mean colour of CELLS x CELLS cells, rows first, of the frame shown at each asked time. */
  readonly colours: readonly (readonly number[])[];
}

let session: CliSession;
let browser: Browser;
let http = "";
let grpc = "";
beforeAll(async () => {
  session = new CliSession();
  browser = await startBrowser();
  const flags = ["--grpc-port", "0", "--http-port", "0", "--data", join(session.folder, "jobs"), "--json"];
  const server = session.start("serve", ...flags);
  await server.says(/^\{"grpc".*\}$/m);
  ({ grpc, http } = JSON.parse(server.stdout.split("\n")[0] ?? "") as { grpc: string; http: string });
});
afterAll(async () => {
  await browser?.close();
  session?.close();
});

/** What the page makes of the file at `url`, looked at at the given times. */
async function look(page: Page, url: string, fps: number, times: readonly number[]): Promise<SeenClip> {
  await page.goto(url);
  const script = `(async () => {
    const video = document.querySelector("video");
    const happens = (name) => new Promise((resolve, reject) => {
      video.addEventListener(name, resolve, { once: true });
      video.addEventListener("error", () => reject(new Error(video.error.message)), { once: true });
    });
    if (video.error) throw new Error(video.error.message);
    if (video.readyState < 2) await happens("loadeddata");
    video.pause();
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const colours = [];
    for (const time of ${JSON.stringify(times)}) {
      // Sought is not shown: what the canvas gets is the frame that was presented last.
      const shown = new Promise((resolve) => {
        const look = (_now, { mediaTime }) =>
          mediaTime <= time && time < mediaTime + 1 / ${fps} ? resolve() : video.requestVideoFrameCallback(look);
        video.requestVideoFrameCallback(look);
      });
      video.currentTime = time;
      await shown;
      context.drawImage(video, 0, 0);
      const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
      const sums = new Float64Array(${CELLS * CELLS * 3});
      for (let y = 0; y < canvas.height; y++)
        for (let x = 0; x < canvas.width; x++) {
          const row = Math.floor((y * ${CELLS}) / canvas.height), column = Math.floor((x * ${CELLS}) / canvas.width);
          for (let c = 0; c < 3; c++) sums[(row * ${CELLS} + column) * 3 + c] += data[(y * canvas.width + x) * 4 + c];
        }
      colours.push(Array.from(sums, (sum) => (sum * ${CELLS * CELLS}) / (canvas.width * canvas.height)));
    }
    return { width: video.videoWidth, height: video.videoHeight, seconds: video.duration, colours };
  })()`;
  return (await page.evaluate(script)) as SeenClip;
}

/** Width and height of the picture at `url`, as the browser decodes it. */
async function pictureSize(page: Page, url: string): Promise<readonly number[]> {
  await page.goto(url);
  const script =
    "(async () => { const [p] = document.images; await p.decode(); return [p.naturalWidth, p.naturalHeight]; })()";
  return (await page.evaluate(script)) as number[];
}

async function sha256Of(path: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

/** Mean colour of the cells of an RGB frame, as the page takes them. */
function cellColours(frame: Uint8Array, width: number, height: number): number[] {
  const sums = new Float64Array(CELLS * CELLS * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const cell = Math.floor((y * CELLS) / height) * CELLS + Math.floor((x * CELLS) / width);
      for (let c = 0; c < 3; c++) sums[cell * 3 + c]! += frame[(y * width + x) * 3 + c]!;
    }
  return Array.from(sums, (sum) => (sum * CELLS * CELLS) / (width * height));
}

for (const [size, fps, seconds] of [
  ["1280x720", 24, 2],
  ["480x832", 30, 1],
  ["1920x1080", 24, 0.5],
] as const) {
  it(`plays ${size} at ${fps} fps: its size, its length, its frames in their places and colours`, async () => {
    const flags = ["--size", size, "--fps", `${fps}`, "--seconds", `${seconds}`, "--steps", "2", "--seed", "4"];
    const made = await session.run("submit", "a red boat", ...flags, "--server", grpc, "--json");
    const { name } = JSON.parse(made.stdout) as { name: string };
    await session.run("watch", name, "--server", grpc, "--json");
    const saved = await session.run(
      "download",
      name,
      "--server",
      grpc,
      "--json",
      "-o",
      join(session.work, `${size}.mp4`),
    );
    const { path } = JSON.parse(saved.stdout) as { path: string };

    const [width = 0, height = 0] = size.split("x").map(Number);
    const frameCount = seconds * fps;
    expect(await probeClip(path)).toMatchObject({
      ...PLAYS_ANYWHERE,
      width,
      height,
      fps,
      frameCount,
      durationSeconds: seconds,
      comment: expect.stringMatching(/"model":"moevie-starter","digest":"[0-9a-f]{64}","seed":4/) as string,
    });
    const frames = await readFrames(path, { width, height });
    const page = await browser.newPage();
    const looked = [0, Math.floor(frameCount / 2), frameCount - 1];
    const seen = await look(
      page,
      `${http}/files/${name.replace("videos/", "")}.mp4`,
      fps,
      looked.map((frame) => (frame + 0.5) / fps),
    );
    expect(seen).toMatchObject({ width, height });
    const beside = `${http}/files/${name.replace("videos/", "")}`;
    const { assertions } = (await (await fetch(`${beside}.credentials.json`)).json()) as {
      assertions: { label: string; data: Record<string, unknown> }[];
    };
    const said = Object.fromEntries(assertions.map(({ label, data }) => [label, data]));
    expect(said["moevie.generation"]).toMatchObject({ seed: 4, width, height, fps, frameCount });
    expect(said["c2pa.hash.data"]).toEqual({ alg: "sha256", hash: await sha256Of(path) });
    const { columns, cellWidth, cellHeight, count } = said["moevie.sprites"] as Record<string, number>;
    const rows = Math.ceil(count! / columns!);
    expect(await pictureSize(page, `${beside}.sprites.jpg`)).toEqual([columns! * cellWidth!, rows * cellHeight!]);
    const [thumbnailWidth = 0, thumbnailHeight = 0] = await pictureSize(page, `${beside}.thumbnail.jpg`);
    expect(Math.max(thumbnailWidth, thumbnailHeight)).toBe(320);
    expect(Math.abs(thumbnailWidth / thumbnailHeight - width / height)).toBeLessThan(0.02);
    await page.close();
    expect(Math.abs(seen.seconds - seconds)).toBeLessThan(0.5 / fps);
    for (const [at, frame] of looked.entries()) {
      const want = cellColours(frames[frame]!, width, height);
      for (const [cell, colour] of seen.colours[at]!.entries())
        expect(Math.abs(colour - want[cell]!)).toBeLessThan(LEVELS[cell % 3]!);
    }
  });
}
