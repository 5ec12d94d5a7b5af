// Step encode: prompt and negative prompt to the context rows of the branches.
import { createHash } from "node:crypto";
import { MoevieError, limit, type TextContext } from "@moevie/contracts";
import { retriesOf, type JobRun } from "./job-run.ts";
import { retryPure } from "./retry.ts";

/** Context rows [tokens, width], f32, under the hash routers know them by. */
export interface Context {
  readonly hash: string;
  readonly shape: readonly [number, number];
  readonly rows: Buffer;
}

export interface BranchContexts {
  readonly conditional: Context;
  /** Absent when guidance is 1 or less: one branch runs. */
  readonly unconditional: Context | undefined;
}

/** Encodes the job's texts. */
export async function encode(run: JobRun, traceparent: string): Promise<BranchContexts> {
  const { prompt, negativePrompt, guidance } = run.spec;
  const texts = guidance > 1 ? [prompt, negativePrompt] : [prompt];
  const call = { signal: run.held.signal, timeoutMs: limit("encodeCallMsMax"), traceparent };
  const { contexts } = await retryPure(
    () => run.peers.textEncoder.unary("Encode", { texts }, call),
    retriesOf(run, "textEncoder"),
  );
  const [conditional, unconditional] = contexts.map(checked);
  if (conditional === undefined || contexts.length !== texts.length) {
    throw new MoevieError("INTERNAL", "The text-encoder gave an answer of the wrong form.", {
      detail: `${contexts.length} contexts for ${texts.length} texts`,
    });
  }
  return { conditional, unconditional };
}

function checked({ contextHash, rows, tokenCount, width }: TextContext): Context {
  const hash = createHash("sha256").update(rows).digest("hex");
  if (hash !== contextHash || rows.length !== tokenCount * width * Float32Array.BYTES_PER_ELEMENT) {
    throw new MoevieError("INTERNAL", "The text-encoder gave an answer of the wrong form.", {
      detail: `${rows.length} bytes for [${tokenCount}, ${width}], hash ${hash} for ${contextHash}`,
    });
  }
  return { hash, shape: [tokenCount, width], rows };
}
