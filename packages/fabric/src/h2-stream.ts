// One stream of an HTTP/2 link: what waits to be sent within the peer's window, and where received payload goes.
import type { Socket } from "node:net";
import { H2Error, H2Type, H2_WINDOW_BYTES_MAX, h2Header } from "./h2-frame.ts";
import { H2Violation } from "./h2-parser.ts";
import type { Headers } from "./hpack.ts";

/** Who takes what a stream receives. */
export interface H2StreamSink {
  /** Where the next payload bytes should go; at least one byte long. Throws a MoevieError to refuse them. */
  target(): Uint8Array;
  /** `bytes` payload bytes were put at the start of the last target. Throws a MoevieError to refuse them. */
  advance(bytes: number): void;
  /** What target or advance threw. */
  refuse(thrown: unknown): void;
  /** Response headers or trailers. */
  headers(headers: Headers): void;
  /** The peer sends no more. */
  end(): void;
  /** The stream is gone, whatever the cause. Called once. */
  close(): void;
}

/** A sink whose owner is there by the time something comes for it. */
export function lateSink(owner: () => H2StreamSink | undefined): H2StreamSink {
  return {
    target: () => (owner() as H2StreamSink).target(),
    advance: (bytes) => owner()?.advance(bytes),
    refuse: (thrown) => owner()?.refuse(thrown),
    headers: (trailers) => owner()?.headers(trailers),
    end: () => owner()?.end(),
    close: () => owner()?.close(),
  };
}

/** The sending side of one stream. */
export interface H2Stream {
  /** Sends the parts one after the other; `done` is called once the kernel has them or they will never be sent. */
  write(parts: readonly Uint8Array[], done?: () => void): void;
  /** Response headers. */
  respond(headers: Iterable<readonly [string, string]>): void;
  /** Ends this side once everything is sent, with trailers where given. */
  end(trailers?: Headers): void;
  readonly closed: boolean;
}

export interface Outgoing {
  /** Sent one after the other. */
  readonly parts: readonly Uint8Array[];
  /** Called once the kernel has the bytes or they will never be sent. */
  readonly done: (() => void) | undefined;
}

/** Where payload goes that nobody wants any more. */
const SCRAP = new Uint8Array(16_384);

/** Payload that waits for window, and the stream's two windows. */
export class H2StreamState {
  readonly id: number;
  readonly sink: H2StreamSink;
  /** Bytes the peer still takes; below zero after its settings shrank. */
  sendWindowBytes: number;
  /** Bytes the peer may still send. */
  receiveWindowBytes: number;
  /** Received since the last WINDOW_UPDATE. */
  unacknowledgedBytes = 0;
  readonly queue: Outgoing[] = [];
  /** Of the queue, not yet taken. */
  queuedBytes = 0;
  /** Part and byte of the queue's first message at which sending goes on. */
  part = 0;
  offset = 0;
  /** Trailers to send when the queue is empty. */
  trailers: Headers | undefined;
  endAfterQueue = false;
  sentEnd = false;
  receivedEnd = false;
  closed = false;
  #refused = false;

  constructor(id: number, sink: H2StreamSink, sendWindowBytes: number, receiveWindowBytes: number) {
    this.id = id;
    this.sink = sink;
    this.sendWindowBytes = sendWindowBytes;
    this.receiveWindowBytes = receiveWindowBytes;
  }

  target(): Uint8Array {
    if (this.closed || this.#refused) return SCRAP;
    try {
      return this.sink.target();
    } catch (thrown) {
      this.#refuse(thrown);
      return SCRAP;
    }
  }

  advance(bytes: number): void {
    if (this.closed || this.#refused) return;
    try {
      this.sink.advance(bytes);
    } catch (thrown) {
      this.#refuse(thrown);
    }
  }

  /** What the owner refuses once it never sees again. */
  #refuse(thrown: unknown): void {
    this.#refused = true;
    this.sink.refuse(thrown);
  }

  /** More window, or less after the peer's settings shrank. */
  grow(bytes: number): void {
    this.sendWindowBytes += bytes;
    if (this.sendWindowBytes > H2_WINDOW_BYTES_MAX)
      throw new H2Violation(H2Error.flowControl, "a stream window beyond its largest");
  }

  enqueue(message: Outgoing): void {
    this.queue.push(message);
    for (const part of message.parts) this.queuedBytes += part.length;
  }

  /** Sends one DATA frame of up to `bytesMax` bytes; answers how many it took of the windows. */
  sendTo(socket: Socket, bytesMax: number): number {
    const { slices, bytes, done } = this.take(bytesMax);
    this.sendWindowBytes -= bytes;
    socket.write(h2Header(bytes, H2Type.data, 0, this.id));
    const sent = done.length === 0 ? undefined : (): void => done.forEach((call) => call());
    slices.forEach((slice, index) => socket.write(slice, index === slices.length - 1 ? sent : undefined));
    if (slices.length === 0) sent?.();
    return bytes;
  }

  /** Takes up to `bytesMax` bytes off the queue: slices to send, and who wants to know when they are sent. */
  take(bytesMax: number): { slices: Uint8Array[]; bytes: number; done: (() => void)[] } {
    const slices: Uint8Array[] = [];
    const done: (() => void)[] = [];
    let bytes = 0;
    for (let first = this.queue[0]; first !== undefined && bytes < bytesMax; first = this.queue[0]) {
      const part = first.parts[this.part];
      if (part === undefined) {
        if (first.done !== undefined) done.push(first.done);
        this.queue.shift();
        this.part = this.offset = 0;
        continue;
      }
      const end = Math.min(part.length, this.offset + bytesMax - bytes);
      if (end > this.offset)
        slices.push(this.offset === 0 && end === part.length ? part : part.subarray(this.offset, end));
      bytes += end - this.offset;
      if (end === part.length) {
        this.part++;
        this.offset = 0;
      } else this.offset = end;
    }
    this.queuedBytes -= bytes;
    const first = this.queue[0];
    if (first !== undefined && this.part === first.parts.length) {
      if (first.done !== undefined) done.push(first.done);
      this.queue.shift();
      this.part = 0;
    }
    return { slices, bytes, done };
  }
}
