// One running FFmpeg filter graph: model frames in, clip frames out, in time order. Owns native memory until `close`.
import { AV_PIX_FMT_RGB24, AVCOL_RANGE_JPEG, AVCOL_SPC_RGB, AVERROR_EAGAIN, AVERROR_EOF } from "node-av/constants";
import { Filter, FilterGraph, FilterInOut, Frame, type FilterContext } from "node-av/lib";
import type { PictureShape } from "./filter-chain.ts";
import { checked, mediaError, present } from "./native.ts";

/** Create with `open`; `push` every frame, `end` once, `pull` until it answers false. */
export class PictureFilter {
  readonly #graph: FilterGraph;
  readonly #source: FilterContext;
  readonly #sink: FilterContext;
  readonly #from: PictureShape;
  #pushed = 0;

  private constructor(graph: FilterGraph, source: FilterContext, sink: FilterContext, from: PictureShape) {
    this.#graph = graph;
    this.#source = source;
    this.#sink = sink;
    this.#from = from;
  }

  /** A graph that reads RGB24 of `from` and does what `filters` say. */
  static async open(from: PictureShape, filters: string): Promise<PictureFilter> {
    const graph = new FilterGraph();
    graph.alloc();
    try {
      graph.nbThreads = 1;
      const size = `video_size=${from.width}x${from.height}:pix_fmt=rgb24:pixel_aspect=1/1`;
      const input = `${size}:time_base=1/${from.fps}:frame_rate=${from.fps}/1:colorspace=gbr:range=pc`;
      const source = present(
        graph.createFilter(present(Filter.getByName("buffer"), "filter buffer"), "in", input),
        "source",
      );
      const sink = present(
        graph.createFilter(present(Filter.getByName("buffersink"), "filter buffersink"), "out"),
        "sink",
      );
      using sourceEnd = new FilterInOut();
      using sinkEnd = new FilterInOut();
      for (const [end, name, context] of [
        [sourceEnd, "in", source],
        [sinkEnd, "out", sink],
      ] as const) {
        end.alloc();
        end.name = name;
        end.filterCtx = context;
        end.padIdx = 0;
      }
      checked(graph.parsePtr(filters, sinkEnd, sourceEnd), "reading the filters");
      checked(await graph.config(), "setting up the filters");
      return new PictureFilter(graph, source, sink, from);
    } catch (thrown) {
      graph.free();
      throw thrown;
    }
  }

  /** `rgb`: [height, width, 3] of the model's size. Read by the next `pull` and not copied: it must be left alone until then. */
  async push(rgb: Uint8Array): Promise<void> {
    const { width, height, fps } = this.#from;
    const bytes = Buffer.from(rgb.buffer, rgb.byteOffset, rgb.byteLength);
    using frame = Frame.fromVideoBuffer(bytes, {
      width,
      height,
      format: AV_PIX_FMT_RGB24,
      timeBase: { num: 1, den: fps },
      pts: BigInt(this.#pushed++),
    });
    frame.colorRange = AVCOL_RANGE_JPEG;
    frame.colorSpace = AVCOL_SPC_RGB;
    checked(await this.#source.buffersrcAddFrame(frame), "filtering a frame");
  }

  /** No more frames will be pushed. */
  async end(): Promise<void> {
    checked(await this.#source.buffersrcAddFrame(null), "ending the filters");
  }

  /** Moves the next finished frame into `frame`; false when there is none yet, or none at all any more. */
  async pull(frame: Frame): Promise<boolean> {
    const code = await this.#sink.buffersinkGetFrame(frame);
    if (code === AVERROR_EAGAIN || code === AVERROR_EOF) return false;
    if (code < 0) throw mediaError(code, "taking a filtered frame");
    return true;
  }

  close(): void {
    this.#graph.free();
  }
}
