// The sheet beside a clip: every cell shows its own frame, whatever became of the memory the frame was in.
import { expect, test } from "vitest";
import { Codec, CodecContext, Frame, Packet } from "node-av/lib";
import { AV_CODEC_ID_MJPEG } from "node-av/constants";
import { StillsTaker } from "./stills.ts";

const FROM = { width: 144, height: 80, fps: 8 };

/** Luma of a JPEG's pixels, [height, width]. */
async function lumaOf(jpeg: Buffer): Promise<{ width: number; height: number; luma: Uint8Array }> {
  const decoder = Codec.findDecoder(AV_CODEC_ID_MJPEG);
  using codec = new CodecContext();
  codec.allocContext3(decoder);
  await codec.open2(decoder);
  using packet = new Packet();
  packet.alloc();
  packet.data = jpeg;
  await codec.sendPacket(packet);
  using frame = new Frame();
  frame.alloc();
  await codec.receiveFrame(frame);
  return { width: frame.width, height: frame.height, luma: new Uint8Array(frame.toBuffer()) };
}

/** One grey a frame, in one piece of memory that is written over as soon as the next frame is asked for. */
async function* greys(count: number): AsyncGenerator<Uint8Array, void> {
  const memory = new Uint8Array(FROM.width * FROM.height * 3);
  for (let frame = 0; frame < count; frame++) {
    yield memory.fill(10 + frame * 14);
    memory.fill(255);
    await Promise.resolve();
  }
}

test.each([
  [17, 16, 16],
  [41, 40, 20],
  [5, 8, 5],
])("of %d frames of which the clip shows %d has %d cells, each its own frame", async (frames, shown, cells) => {
  using taker = new StillsTaker(FROM, { width: 1280, height: 720, fps: 24 }, shown);
  for await (const frame of taker.watch(greys(frames))) void frame;
  const { sprites, spritesJpeg } = await taker.finish();
  expect(sprites).toMatchObject({ columns: 5, cellWidth: 160, cellHeight: 90, count: cells });
  const { width, luma } = await lumaOf(spritesJpeg);
  expect(width).toBe(800);
  for (let cell = 0; cell < cells; cell++) {
    const shownAt = Math.floor(((cell + 0.5) * shown) / Math.min(shown, 20));
    const [x, y] = [(cell % 5) * 160 + 80, Math.floor(cell / 5) * 90 + 45];
    expect(Math.abs((luma[y * width + x] ?? 0) - ((10 + shownAt * 14) & 255)), `cell ${cell}`).toBeLessThanOrEqual(3);
  }
});
