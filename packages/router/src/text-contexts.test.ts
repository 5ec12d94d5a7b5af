// Contexts that streams bring: asked for once, waited for by others, and never one that was not asked for.
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { DenoiseRequest, DenoiseResponse } from "@moevie/contracts";
import type { Loose } from "@moevie/runtime";
import { TextContexts } from "./text-contexts.ts";
import type { DenoiserContext } from "./context-cache.ts";

const WIDTH = 3;
const ROWS = Float32Array.from({ length: 2 * WIDTH }, (_, i) => i);
const BYTES = Buffer.from(ROWS.buffer);
const HASH = createHash("sha256").update(BYTES).digest("hex");
const KEY = { graphs: "", hash: HASH };
const TENSOR = { elementType: "ELEMENT_TYPE_F32" as const, shape: [2, WIDTH] };

function contexts(): { held: TextContexts; made: () => number } {
  let made = 0;
  const context = (_graphs: string, rows: Float32Array, tokens: number): Promise<DenoiserContext> => {
    made++;
    return Promise.resolve({ ctx: rows, tokens, pooled: new Float32Array(1) });
  };
  return { held: new TextContexts({ context }, WIDTH), made: () => made };
}

/** A caller that answers what it is asked, when `when` is over. */
class Caller {
  readonly asked: string[] = [];
  readonly #parts: DenoiseRequest[];
  readonly #when: Promise<unknown>;

  constructor(parts: readonly DenoiseRequest[], when: Promise<unknown> = Promise.resolve()) {
    this.#parts = [...parts];
    this.#when = when;
  }

  async want(held: TextContexts, signal = new AbortController().signal): Promise<DenoiserContext> {
    const requests = { next: () => this.#next() };
    const answers: AsyncGenerator<Loose<DenoiseResponse>, DenoiserContext> = held.wanted(KEY, requests, signal);
    for (;;) {
      const answer = await answers.next();
      if (answer.done === true) return answer.value;
      this.asked.push(answer.value.contextMissing?.contextHash ?? "");
    }
  }

  async #next(): Promise<IteratorResult<DenoiseRequest>> {
    await this.#when;
    const value = this.#parts.shift();
    return value === undefined ? { done: true, value: undefined } : { done: false, value };
  }
}

const sent = (changes: { contextHash?: string; shape?: number[] } = {}): DenoiseRequest[] => [
  {
    context: {
      contextHash: changes.contextHash ?? HASH,
      rows: { ...TENSOR, shape: changes.shape ?? TENSOR.shape },
      variant: "",
    },
  },
  { chunk: BYTES },
];

test("a context is asked for once, by the first stream that needs it; the others wait for it", async () => {
  const { held, made } = contexts();
  const gate = Promise.withResolvers<void>();
  const first = new Caller(sent(), gate.promise);
  const others = [new Caller([]), new Caller([])];
  const work = [first, ...others].map((caller) => caller.want(held));
  gate.resolve();
  for (const context of await Promise.all(work)) expect(context.ctx).toEqual(ROWS);
  expect([first, ...others].map(({ asked }) => asked)).toEqual([[HASH], [], []]);
  expect(made()).toBe(1);
});

test("when the stream that was asked goes away, the next is asked", async () => {
  const { held } = contexts();
  const gate = Promise.withResolvers<void>();
  const gone = new Caller([], gate.promise);
  const next = new Caller(sent());
  const work = [gone.want(held), next.want(held)];
  gate.resolve();
  await expect(work[0]).rejects.toMatchObject({ reason: "INVALID_FIELD" });
  expect((await work[1])?.ctx).toEqual(ROWS);
  expect(next.asked).toEqual([HASH]);
});

test("a stream that waits for another's context ends when its own caller goes away", async () => {
  const { held } = contexts();
  const never = new Caller([], new Promise(() => undefined));
  void never.want(held);
  const abort = new AbortController();
  const waiting = new Caller([]).want(held, abort.signal);
  abort.abort();
  await expect(waiting).rejects.toMatchObject({ reason: "CANCELLED" });
});

test.each<[string, DenoiseRequest[]]>([
  ["another context", sent({ contextHash: "0".repeat(64) })],
  ["rows of another width", sent({ shape: [WIDTH, 2] })],
  ["no context at all", [{ chunk: BYTES }]],
  ["too few rows", sent({ shape: [3, WIDTH] })],
])("%s instead of the one asked for is refused by name", async (_, parts) => {
  const { held } = contexts();
  await expect(new Caller(parts).want(held)).rejects.toMatchObject({
    reason: "INVALID_FIELD",
    message: expect.stringMatching(/^context/) as string,
  });
});

test("rows whose hash is another are refused", async () => {
  const { held } = contexts();
  const parts = [...sent().slice(0, 1), { chunk: Buffer.alloc(BYTES.length) }];
  await expect(new Caller(parts).want(held)).rejects.toMatchObject({
    message: expect.stringContaining("sha256") as string,
  });
});
