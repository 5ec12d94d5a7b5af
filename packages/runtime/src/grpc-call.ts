// One open bidirectional call, message by message: for streams that serve many requests, one after the other.
import type { ClientDuplexStream } from "@grpc/grpc-js";

/** Sends and receives in turn. An error of the call is thrown by the next `receive`, as a MoevieError. */
export class BidiCall<Q, S> {
  readonly #call: ClientDuplexStream<object, object>;
  readonly #answers: AsyncIterator<object>;
  readonly #asError: (thrown: unknown) => unknown;
  #over = false;
  #error: unknown;

  /** `asError` turns what the call failed with into what `receive` throws. */
  constructor(call: ClientDuplexStream<object, object>, asError: (thrown: unknown) => unknown) {
    this.#call = call;
    this.#asError = asError;
    this.#answers = call[Symbol.asyncIterator]() as AsyncIterator<object>;
    call.once("status", () => (this.#over = true));
    // Told by receive: an error that comes before the first receive would be lost, and without a listener end the process.
    call.on("error", (error: unknown) => (this.#error ??= error));
  }

  /** Sends a message, waiting while the peer takes no more. Does nothing when the call is over: receive says why. */
  async send(message: Q): Promise<void> {
    if (this.#over || this.#call.write(message as object)) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#call.removeListener("drain", done);
        this.#call.removeListener("status", done);
        resolve();
      };
      this.#call.once("drain", done);
      this.#call.once("status", done);
    });
  }

  /** The next message, or undefined when the peer ended the call. */
  async receive(): Promise<S | undefined> {
    let next: IteratorResult<object>;
    try {
      next = await this.#answers.next();
    } catch (thrown) {
      throw this.#asError(thrown);
    }
    if (next.done !== true) return next.value as S;
    if (this.#error !== undefined) throw this.#asError(this.#error);
    return undefined;
  }

  /** Sends no more; the peer may still answer. */
  end(): void {
    this.#call.end();
  }

  cancel(): void {
    this.#call.cancel();
  }
}
