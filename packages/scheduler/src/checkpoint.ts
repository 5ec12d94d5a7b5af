// A checkpoint as bytes: everything a job is between two steps, to the last bit. That they are whole is the store's matter.
//   "MVCK" | u32 header bytes | JSON header, padded with spaces | f32 arrays, little-endian
import { createHash } from "node:crypto";
import type { SamplerState } from "@moevie/diffusion";
import type { JobSpec } from "@moevie/job-store";
import { bytesOf } from "./tensor-stream.ts";

const MAGIC = "MVCK";
/** Grows when the bytes or the arithmetic of samplers change: results of two versions do not mix. */
const VERSION = 2;
const PREFIX_BYTES = 8;
const VALUE_BYTES = Float32Array.BYTES_PER_ELEMENT;

export interface Checkpoint {
  /** Which job this is a state of; see jobFingerprint. */
  readonly fingerprint: string;
  /** Steps done. */
  readonly step: number;
  readonly latent: Float32Array;
  readonly sampler: SamplerState;
}

interface Header {
  readonly version: number;
  readonly fingerprint: string;
  readonly step: number;
  /** Values of each array: latent, estimates, last latent. */
  readonly values: number;
  readonly sampler: { readonly name: SamplerState["name"]; readonly warmUp: number; readonly order: number };
  readonly estimates: number;
  readonly lastLatent: boolean;
}

/** sha256 over all that decides a job's latents: spec, bundle and shape. */
export function jobFingerprint(spec: JobSpec, bundleDigest: string, shape: readonly number[]): string {
  const { prompt, negativePrompt, seed, steps, guidance, sampler, quality } = spec;
  const variant = quality === "standard" ? [] : [quality];
  const { guidanceLow, boundary, shift, grid } = spec;
  // As text only what is there: jobs stored before these could be asked for have none of them.
  const schedule = Object.entries({ guidanceLow, boundary, shift, grid }).filter(([, value]) => value !== undefined);
  const facts = [prompt, negativePrompt, seed, steps, guidance, sampler, bundleDigest, shape, ...variant, ...schedule];
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex");
}

/** The checkpoint's bytes in parts; the arrays are not copied. */
export function encodeCheckpoint({ fingerprint, step, latent, sampler }: Checkpoint): readonly Uint8Array[] {
  const { name, warmUp, order, estimates, lastLatent } = sampler;
  const header: Header = {
    version: VERSION,
    fingerprint,
    step,
    values: latent.length,
    sampler: { name, warmUp, order },
    estimates: estimates.length,
    lastLatent: lastLatent !== undefined,
  };
  const json = Buffer.from(JSON.stringify(header));
  // Spaces up to a whole number of values: the arrays are read in place.
  const head = Buffer.alloc(PREFIX_BYTES + Math.ceil(json.length / VALUE_BYTES) * VALUE_BYTES, " ");
  head.write(MAGIC, "latin1");
  head.writeUInt32LE(head.length - PREFIX_BYTES, MAGIC.length);
  json.copy(head, PREFIX_BYTES);
  const arrays = [latent, ...estimates, ...(lastLatent === undefined ? [] : [lastLatent])];
  return [head, ...arrays.map(bytesOf)];
}

/** The state in `bytes`, the sampler's arrays being views of them; undefined when they are of another version. */
export function decodeCheckpoint(bytes: Uint8Array): Checkpoint | undefined {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (all.length < PREFIX_BYTES || all.toString("latin1", 0, MAGIC.length) !== MAGIC) return undefined;
  // The store answers for the bytes, so the rest is what some build of moevie wrote.
  let at = PREFIX_BYTES + all.readUInt32LE(MAGIC.length);
  const header = JSON.parse(all.toString("utf8", PREFIX_BYTES, at)) as Header;
  if (header.version !== VERSION) return undefined;
  const next = (): Float32Array => {
    const values = new Float32Array(bytes.buffer, bytes.byteOffset + at, header.values);
    at += values.byteLength;
    return values;
  };
  // A copy: the sampler's views are given up in two steps, and all bytes with them.
  const latent = next().slice();
  const estimates = Array.from({ length: header.estimates }, next);
  const lastLatent = header.lastLatent ? next() : undefined;
  return {
    fingerprint: header.fingerprint,
    step: header.step,
    latent,
    sampler: { ...header.sampler, estimates, lastLatent },
  };
}
