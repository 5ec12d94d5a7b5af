// The small pictures beside a clip: a thumbnail, and a sheet of evenly spaced ones for seeking. Taken from the model's frames as they pass.
import { Frame } from "node-av/lib";
import { MoevieError, type SpriteSheet } from "@moevie/contracts";
import type { PictureShape } from "./filter-chain.ts";
import { encodeJpeg } from "./jpeg.ts";
import { PictureFilter } from "./picture-filter.ts";

const CELLS_MAX = 20;
const COLUMNS = 5;
const CELL_SIDE = 160;
const THUMBNAIL_SIDE = 320;

export interface Stills {
  readonly thumbnailJpeg: Buffer;
  readonly spritesJpeg: Buffer;
  readonly sprites: SpriteSheet;
}

/** Size with the aspect of `to` and a longer side of `side`, both even. */
function fitted(to: PictureShape, side: number): { width: number; height: number } {
  const scale = side / Math.max(to.width, to.height);
  const even = (length: number): number => Math.max(2, Math.round((length * scale) / 2) * 2);
  return { width: even(to.width), height: even(to.height) };
}

function smallPicture({ width, height }: { width: number; height: number }, more = ""): string {
  return `scale=${width}:${height}:force_original_aspect_ratio=increase:flags=lanczos,crop=${width}:${height},setsar=1${more},format=yuvj420p`;
}

export class StillsTaker {
  readonly #from: PictureShape;
  readonly #cell: { width: number; height: number };
  readonly #thumbnailSize: { width: number; height: number };
  readonly #count: number;
  readonly #shown: number;
  #sheet: PictureFilter | undefined;
  readonly #sheetFrame = new Frame();
  /** The sheet is in its frame. */
  #full = false;
  #middle: Uint8Array | undefined;
  #seen = 0;
  #taken = 0;

  /** `shown`: how many of the model's frames the clip shows, 1 or more. */
  constructor(from: PictureShape, to: PictureShape, shown: number) {
    this.#from = from;
    this.#cell = fitted(to, CELL_SIDE);
    this.#thumbnailSize = fitted(to, THUMBNAIL_SIDE);
    this.#shown = shown;
    this.#sheetFrame.alloc();
    this.#count = Math.min(shown, CELLS_MAX);
  }

  /** `frames` as they are, looked at on the way. */
  async *watch(frames: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
    for await (const rgb of frames) {
      const at = this.#seen++;
      if (at <= this.#shown / 2) this.#middle = rgb;
      if (this.#taken < this.#count && at === Math.floor(((this.#taken + 0.5) * this.#shown) / this.#count)) {
        const rows = Math.ceil(this.#count / COLUMNS);
        const tile = `,format=rgb24,tile=${Math.min(COLUMNS, this.#count)}x${rows}:nb_frames=${this.#count}`;
        this.#sheet ??= await PictureFilter.open(this.#from, smallPicture(this.#cell, tile));
        await this.#sheet.push(rgb);
        // Taken at once, or the graph would read the bytes when they are something else.
        this.#full ||= await this.#sheet.pull(this.#sheetFrame);
        this.#taken++;
      }
      yield rgb;
    }
  }

  /** Both pictures, of the frames that have passed: a clip may be full before its last one is asked for. */
  async finish(): Promise<Stills> {
    if (this.#sheet === undefined || this.#middle === undefined)
      throw new MoevieError("INTERNAL", "The clip took no frames.");
    if (!this.#full) {
      await this.#sheet.end();
      this.#full = await this.#sheet.pull(this.#sheetFrame);
    }
    if (!this.#full) throw new MoevieError("INTERNAL", "The sheet of small pictures was not made.");
    const { width, height } = this.#cell;
    return {
      thumbnailJpeg: await this.#picture(this.#middle),
      spritesJpeg: await encodeJpeg(this.#sheetFrame),
      sprites: {
        columns: Math.min(COLUMNS, this.#count),
        cellWidth: width,
        cellHeight: height,
        count: this.#taken,
        secondsApart: this.#shown / this.#count / this.#from.fps,
      },
    };
  }

  [Symbol.dispose](): void {
    this.#sheet?.close();
    this.#sheetFrame.free();
  }

  async #picture(rgb: Uint8Array): Promise<Buffer> {
    const filter = await PictureFilter.open(this.#from, smallPicture(this.#thumbnailSize));
    try {
      await filter.push(rgb);
      await filter.end();
      using frame = new Frame();
      frame.alloc();
      if (!(await filter.pull(frame))) throw new MoevieError("INTERNAL", "The thumbnail was not made.");
      return await encodeJpeg(frame);
    } finally {
      filter.close();
    }
  }
}
