// An HTTP/2 connection (RFC 9113) as the exchange needs it: few streams, large windows, and reading that never waits for writing.
// Node's own http2 stops reading a socket while a write of its own is under way, so two ends that both send more than the
// kernel buffers stand still for ever (docs/decisions/exchange-own-http2.md). Knows frames and streams, not what they carry.
import type { Socket } from "node:net";
import { limit } from "@moevie/contracts";
import {
  H2Error,
  H2Flag,
  H2Setting,
  H2Type,
  H2_FRAME_BYTES,
  H2_WINDOW_BYTES,
  H2_WINDOW_BYTES_MAX,
  goAwayFrame,
  h2Frame,
  h2Header,
  h2Number,
  readSettings,
} from "./h2-frame.ts";
import type { H2Header } from "./h2-frame.ts";
import { H2Parser, H2Violation, expectLength, expectStreamZero } from "./h2-parser.ts";
import type { H2Frames, PayloadSink } from "./h2-parser.ts";
import {
  COSTLY_FRAMES_MAX,
  COSTLY_FRAMES_MS,
  FRAME_BYTES_MAX,
  GO_AWAY_MS_MAX,
  HANDSHAKE_MS_MAX,
  PING_BYTES,
  QUEUED_BYTES_MAX,
  STREAMS_MAX,
  WINDOW_BYTES,
  greeting,
} from "./h2-limits.ts";
import { H2StreamState, lateSink } from "./h2-stream.ts";
import type { H2Stream, H2StreamSink } from "./h2-stream.ts";
import { HeaderBlocks } from "./header-blocks.ts";
import type { HeaderBlock } from "./header-blocks.ts";
import { encodeHeaders } from "./hpack.ts";
import type { Headers } from "./hpack.ts";
import { watchSilence } from "./keep-alive.ts";
import { RateBound } from "./rate-bound.ts";
import { startTimer } from "./timer.ts";

export interface H2ConnectionOptions {
  readonly role: "client" | "server";
  /** A stream of the peer (server only). */
  readonly onStream?: (stream: H2Stream, headers: Headers) => H2StreamSink;
  /** The connection is gone, whatever the cause. Called once. */
  readonly onClose: () => void;
  /** Silence after which the peer counts as gone. */
  readonly silenceMs?: number;
}

const NOTHING = Buffer.alloc(0);

export class H2Connection implements H2Frames {
  readonly parser: H2Parser;
  readonly #options: H2ConnectionOptions;
  readonly #blocks = new HeaderBlocks();
  readonly #streams = new Map<number, H2StreamState>();
  readonly #costly = new RateBound(COSTLY_FRAMES_MAX, COSTLY_FRAMES_MS);
  #socket: Socket | undefined;
  #lastPeerStream = 0;
  #nextStream = 1;
  #settingsSeen = false;
  #sendWindowBytes = H2_WINDOW_BYTES;
  #receiveWindowBytes = WINDOW_BYTES;
  #unacknowledgedBytes = 0;
  #peerWindowBytes = H2_WINDOW_BYTES;
  #peerFrameBytesMax = H2_FRAME_BYTES;
  #closed = false;
  /** The peer said good-bye. */
  #leaving = false;

  constructor(options: H2ConnectionOptions) {
    this.#options = options;
    this.parser = new H2Parser(this, { preface: options.role === "server", frameBytesMax: FRAME_BYTES_MAX });
  }

  /** Starts speaking on a socket that feeds `parser`. */
  start(socket: Socket): void {
    this.#socket = socket;
    socket.on("error", () => socket.destroy());
    socket.on("end", () => socket.destroy());
    socket.on("close", () => this.#gone());
    const stopTimer = startTimer(HANDSHAKE_MS_MAX, () => {
      if (!this.#settingsSeen) socket.destroy();
    });
    socket.on("close", stopTimer);
    watchSilence(socket, this.#options.silenceMs ?? limit("exchangeSilenceMsMax"), () =>
      socket.write(h2Frame(H2Type.ping, 0, 0, Buffer.alloc(PING_BYTES))),
    );
    socket.write(greeting(this.#options.role));
  }

  /** Opens a stream (client only). */
  request(headers: Iterable<readonly [string, string]>, sink: H2StreamSink): H2Stream {
    const state = this.#open(this.#nextStream, sink);
    this.#nextStream += 2;
    this.#socket?.write(h2Frame(H2Type.headers, H2Flag.endHeaders, state.id, encodeHeaders(headers)));
    return this.#handle(state);
  }

  /** Says good-bye and closes once what was written is out. */
  close(): void {
    this.#goAway(H2Error.none, "");
  }

  destroy(): void {
    this.#socket?.destroy();
  }

  // Frames, called by the parser.

  dataStart(header: H2Header): PayloadSink | undefined {
    this.#expectFrames();
    const { stream: id, length, flags } = header;
    if (length === 0 && (flags & H2Flag.endStream) === 0) this.#count();
    this.#receiveWindowBytes -= length;
    const stream = this.#known(id);
    if (this.#receiveWindowBytes < 0) throw new H2Violation(H2Error.flowControl, "beyond the connection's window");
    if (stream === undefined) return undefined;
    if (stream.receivedEnd) throw new H2Violation(H2Error.streamClosed, "payload behind the end of a stream");
    stream.receiveWindowBytes -= length;
    if (stream.receiveWindowBytes < 0) throw new H2Violation(H2Error.flowControl, "beyond the stream's window");
    return stream;
  }

  dataEnd({ stream: id, length, flags }: H2Header): void {
    this.#unacknowledgedBytes += length;
    if (this.#unacknowledgedBytes * 2 >= WINDOW_BYTES) {
      this.#receiveWindowBytes += this.#unacknowledgedBytes;
      this.#socket?.write(h2Number(H2Type.windowUpdate, 0, this.#unacknowledgedBytes));
      this.#unacknowledgedBytes = 0;
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) return;
    if ((flags & H2Flag.endStream) !== 0) return this.#peerEnded(stream);
    stream.unacknowledgedBytes += length;
    if (stream.unacknowledgedBytes * 2 < WINDOW_BYTES) return;
    stream.receiveWindowBytes += stream.unacknowledgedBytes;
    this.#socket?.write(h2Number(H2Type.windowUpdate, id, stream.unacknowledgedBytes));
    stream.unacknowledgedBytes = 0;
  }

  frame(header: H2Header, payload: Buffer): void {
    const { type, flags, stream: id } = header;
    this.#blocks.expect(type);
    if (type !== H2Type.settings) this.#expectFrames();
    expectStreamZero(header);
    switch (type) {
      case H2Type.settings:
        return this.#settings(header, payload);
      case H2Type.headers:
      case H2Type.continuation: {
        const block =
          type === H2Type.headers ? this.#blocks.begin(header, payload) : this.#blocks.goOn(header, payload);
        if (type === H2Type.continuation) this.#count();
        if (block !== undefined) this.#headersDone(block);
        return;
      }
      case H2Type.windowUpdate:
        return this.#windowUpdate(id, payload);
      case H2Type.ping:
        expectLength(payload, PING_BYTES);
        this.#count();
        if ((flags & H2Flag.ack) === 0) this.#answer(h2Frame(H2Type.ping, H2Flag.ack, 0, payload));
        return;
      case H2Type.goAway:
        if (payload.length < 8) throw new H2Violation(H2Error.frameSize, "GOAWAY of a broken length");
        return this.#peerGoesAway(payload.readUInt32BE(0) & 0x7fff_ffff);
      case H2Type.reset: {
        expectLength(payload, 4);
        this.#count();
        const stream = this.#known(id);
        if (stream !== undefined) this.#close(stream);
        return;
      }
      case H2Type.pushPromise:
        throw new H2Violation(H2Error.protocol, "a push, though none is taken");
      default:
      // PRIORITY and frames of later versions mean nothing here.
    }
  }

  violation({ code, message }: H2Violation): void {
    this.#goAway(code, message);
  }

  // Receiving.

  /** Every connection begins with SETTINGS. */
  #expectFrames(): void {
    if (!this.#settingsSeen) throw new H2Violation(H2Error.protocol, "the first frame must be SETTINGS");
  }

  #count(): void {
    if (!this.#costly.take()) throw new H2Violation(H2Error.enhanceYourCalm, "too many control frames");
  }

  /** The stream, or undefined for one that is closed. Throws for one that never was. */
  #known(id: number): H2StreamState | undefined {
    const stream = this.#streams.get(id);
    const idle = this.#options.role === "server" ? id > this.#lastPeerStream || id % 2 === 0 : id >= this.#nextStream;
    if (stream === undefined && (id === 0 || idle))
      throw new H2Violation(H2Error.protocol, `a frame for stream ${id}, which was never opened`);
    return stream;
  }

  #settings({ flags }: H2Header, payload: Buffer): void {
    this.#settingsSeen = true;
    this.#count();
    if ((flags & H2Flag.ack) !== 0) return expectLength(payload, 0);
    if (payload.length % 6 !== 0) throw new H2Violation(H2Error.frameSize, "SETTINGS of a broken length");
    for (const [id, value] of readSettings(payload)) this.#setting(id, value);
    this.#answer(h2Frame(H2Type.settings, H2Flag.ack, 0, NOTHING));
    this.#flush();
  }

  #setting(id: number, value: number): void {
    if (id === H2Setting.frameBytesMax) {
      if (value < H2_FRAME_BYTES || value > 0xff_ffff)
        throw new H2Violation(H2Error.protocol, `a largest frame of ${value} bytes`);
      this.#peerFrameBytesMax = value;
    } else if (id === H2Setting.initialWindow) {
      if (value > H2_WINDOW_BYTES_MAX) throw new H2Violation(H2Error.flowControl, `a window of ${value} bytes`);
      for (const stream of this.#streams.values()) stream.grow(value - this.#peerWindowBytes);
      this.#peerWindowBytes = value;
    }
  }

  #windowUpdate(id: number, payload: Buffer): void {
    expectLength(payload, 4);
    const bytes = payload.readUInt32BE(0) & 0x7fff_ffff;
    if (bytes === 0) throw new H2Violation(H2Error.protocol, "a window update of nothing");
    if (id === 0) {
      this.#sendWindowBytes += bytes;
      if (this.#sendWindowBytes > H2_WINDOW_BYTES_MAX)
        throw new H2Violation(H2Error.flowControl, "a connection window beyond its largest");
    } else {
      const stream = this.#known(id);
      if (stream !== undefined) stream.grow(bytes);
    }
    this.#flush();
  }

  #headersDone({ stream: id, endStream, headers }: HeaderBlock): void {
    const known = this.#streams.get(id);
    if (known !== undefined) {
      this.#count();
      if (known.receivedEnd) throw new H2Violation(H2Error.streamClosed, "headers behind the end of a stream");
      known.sink.headers(headers);
    }
    if (known === undefined && this.#options.role === "server" && id > this.#lastPeerStream) this.#accept(id, headers);
    else this.#known(id);
    const stream = this.#streams.get(id);
    if (stream !== undefined && endStream) this.#peerEnded(stream);
  }

  #accept(id: number, headers: Headers): void {
    if (id % 2 === 0) throw new H2Violation(H2Error.protocol, `a client's stream ${id}`);
    this.#count();
    this.#lastPeerStream = id;
    if (this.#streams.size >= STREAMS_MAX) {
      this.#socket?.write(h2Number(H2Type.reset, id, H2Error.refusedStream));
      return;
    }
    // The owner may write while it is being made: the stream is known by then, and asks for its owner when something comes.
    let sink: H2StreamSink | undefined;
    const state = this.#open(
      id,
      lateSink(() => sink),
    );
    sink = this.#options.onStream?.(this.#handle(state), headers);
  }

  /** Streams that the peer never took end at once, the others as they would; after the last the connection is of no use. */
  #peerGoesAway(lastTaken: number): void {
    this.#leaving = true;
    if (this.#options.role === "client")
      for (const stream of this.#streams.values()) if (stream.id > lastTaken) this.#close(stream);
    this.#leaveWhenDone();
  }

  #leaveWhenDone(): void {
    if (this.#leaving && this.#streams.size === 0) this.close();
  }

  #peerEnded(stream: H2StreamState): void {
    stream.receivedEnd = true;
    stream.sink.end();
    if (stream.sentEnd) this.#close(stream);
  }

  // Sending.

  #open(id: number, sink: H2StreamSink): H2StreamState {
    const state = new H2StreamState(id, sink, this.#peerWindowBytes, WINDOW_BYTES);
    this.#streams.set(id, state);
    return state;
  }

  #handle(state: H2StreamState): H2Stream {
    return {
      write: (parts, done) => {
        if (state.closed || state.endAfterQueue) return done?.();
        state.enqueue({ parts, done });
        this.#flush();
        this.#boundQueue();
      },
      respond: (headers) => {
        if (!state.closed)
          this.#socket?.write(h2Frame(H2Type.headers, H2Flag.endHeaders, state.id, encodeHeaders(headers)));
      },
      end: (trailers) => {
        if (state.closed || state.endAfterQueue) return;
        state.endAfterQueue = true;
        state.trailers = trailers;
        this.#flush();
      },
      get closed() {
        return state.closed;
      },
    };
  }

  #flush(): void {
    const socket = this.#socket;
    if (socket === undefined || this.#closed) return;
    socket.cork();
    for (const stream of this.#streams.values()) {
      while (stream.queue.length > 0) {
        const bytesMax = Math.min(this.#sendWindowBytes, stream.sendWindowBytes, this.#peerFrameBytesMax);
        if (bytesMax <= 0) break;
        this.#sendWindowBytes -= stream.sendTo(socket, bytesMax);
      }
      if (stream.queue.length === 0 && stream.endAfterQueue && !stream.sentEnd) this.#sendEnd(socket, stream);
    }
    socket.uncork();
  }

  #answer(frame: Buffer): void {
    this.#socket?.write(frame);
    this.#boundQueue();
  }

  /** A peer that asks and does not read is cut off: what waits for it must not fill the memory. */
  #boundQueue(): void {
    let bytes = this.#socket?.writableLength ?? 0;
    for (const { queuedBytes } of this.#streams.values()) bytes += queuedBytes;
    if (bytes > QUEUED_BYTES_MAX) this.#goAway(H2Error.enhanceYourCalm, "too much waits to be read");
  }

  #sendEnd(socket: Socket, stream: H2StreamState): void {
    stream.sentEnd = true;
    const flags = H2Flag.endStream;
    if (stream.trailers === undefined) socket.write(h2Header(0, H2Type.data, flags, stream.id));
    else socket.write(h2Frame(H2Type.headers, flags | H2Flag.endHeaders, stream.id, encodeHeaders(stream.trailers)));
    if (!stream.receivedEnd && this.#options.role === "server")
      socket.write(h2Number(H2Type.reset, stream.id, H2Error.none));
    if (stream.receivedEnd || this.#options.role === "server") this.#close(stream);
  }

  // Ends.

  #close(stream: H2StreamState): void {
    if (stream.closed) return;
    stream.closed = true;
    this.#streams.delete(stream.id);
    const begun = stream.part > 0 || stream.offset > 0;
    stream.queue.splice(0).forEach(({ done }, index) => {
      // What the socket holds of a message it must still be able to read.
      if (done !== undefined && begun && index === 0) this.#socket?.write(NOTHING, () => done());
      else done?.();
    });
    stream.sink.close();
    this.#leaveWhenDone();
  }

  #goAway(code: H2Error, message: string): void {
    if (this.#closed) return;
    const socket = this.#socket;
    socket?.write(goAwayFrame(this.#lastPeerStream, code, message));
    // Streams first: what they still hand to the socket must not come behind its end.
    this.#gone();
    socket?.destroySoon();
    // A peer that does not read must not keep the socket.
    startTimer(GO_AWAY_MS_MAX, () => socket?.destroy());
  }

  #gone(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.parser.stop();
    for (const stream of this.#streams.values()) this.#close(stream);
    this.#options.onClose();
  }
}
