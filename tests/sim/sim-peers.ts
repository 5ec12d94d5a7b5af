// Text-encoder, router and decoder of a simulated scheduler: pure, by small arithmetic, slow by virtual time and now and then away.
import { createHash } from "node:crypto";
import { MoevieError } from "@moevie/contracts";
import type { SchedulerParts } from "@moevie/scheduler/service";
import type { SimProcess } from "./world.ts";

const TOKENS = 1;
const WIDTH = 2;
const STEP_MS_MIN = 15;
const STEP_MS_MAX = 60;

type Peers = SchedulerParts["peers"];

interface DenoiseHead {
  readonly latent: { readonly shape: readonly number[] };
  readonly timestep: number;
}

interface DecodeHead {
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly frameCount: number;
}

type Part<H> = { readonly head: H; readonly chunk?: never } | { readonly chunk: Buffer; readonly head?: never };

/** `failures`: of calls that end with PEER_UNAVAILABLE, as those of a peer that died. */
export function simPeers(process: SimProcess, failures: () => number): Peers {
  const work = async (signal?: AbortSignal): Promise<void> => {
    await process.clock.pause(process.world.between(STEP_MS_MIN, STEP_MS_MAX), signal);
    if (process.world.chance(failures())) throw new MoevieError("PEER_UNAVAILABLE", "The peer died.");
  };
  const peers = {
    textEncoder: {
      async unary(_name: string, { texts }: { readonly texts: readonly string[] }, call: { signal: AbortSignal }) {
        await work(call.signal);
        return { contexts: texts.map(contextOf) };
      },
    },
    router: { open: () => denoiseCall(work) },
    decoder: {
      async *bidi(_name: string, requests: AsyncIterable<Part<DecodeHead>>, call: { signal: AbortSignal }) {
        const { head, bytes } = await received(requests);
        const clip = Buffer.concat([0, 1, 2].map((n) => createHash("sha256").update(`${n}`).update(bytes).digest()));
        await work(call.signal);
        yield { progress: { framesEncoded: 1, frameCount: head.frameCount } };
        yield { mp4Chunk: clip.subarray(0, 50) };
        await work(call.signal);
        yield { mp4Chunk: clip.subarray(50) };
        const { width, height, fps, frameCount } = head;
        const measured = { codec: "h264", pixelFormat: "yuv420p", width, height, fps, frameCount };
        yield { facts: { ...measured, sizeBytes: clip.length, sha256: sha256(clip) } };
      },
    },
  };
  return peers as unknown as Peers;
}

function contextOf(text: string): object {
  const rows = Buffer.from(Float32Array.from({ length: TOKENS * WIDTH }, (_, i) => text.length + i).buffer);
  return { contextHash: sha256(rows), rows, tokenCount: TOKENS, width: WIDTH, usedTokenCount: 1 };
}

function denoiseCall(work: () => Promise<void>): object {
  let head: DenoiseHead | undefined;
  let chunks: Buffer[] = [];
  const { promise: cancelled, reject: cancel } = Promise.withResolvers<never>();
  cancelled.catch(() => undefined);
  const answers: object[] = [];
  return {
    send(part: Part<DenoiseHead>) {
      if (part.head !== undefined) [head, chunks] = [part.head, []];
      else chunks.push(Buffer.from(part.chunk));
      return Promise.resolve();
    },
    async receive() {
      if (answers.length === 0 && head !== undefined) {
        await Promise.race([work(), cancelled]);
        const bytes = new Uint8Array(Buffer.concat(chunks));
        const { timestep } = head;
        const velocity = new Float32Array(bytes.buffer).map((value) => value * 0.5 + timestep / 1000);
        answers.push({ head: { velocity: { elementType: "ELEMENT_TYPE_F32", shape: [...head.latent.shape] } } });
        answers.push({ chunk: Buffer.from(velocity.buffer) });
      }
      return answers.shift();
    },
    end: () => undefined,
    cancel: () => cancel(new MoevieError("CANCELLED", "The call was cancelled.")),
  };
}

async function received(requests: AsyncIterable<Part<DecodeHead>>): Promise<{ head: DecodeHead; bytes: Buffer }> {
  let head: DecodeHead | undefined;
  const chunks: Buffer[] = [];
  for await (const part of requests) {
    if (part.head !== undefined) head = part.head;
    else chunks.push(part.chunk);
  }
  if (head === undefined) throw new Error("no head");
  return { head, bytes: Buffer.concat(chunks) };
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
