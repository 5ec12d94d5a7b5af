// A checkpoint as bytes: everything a job is between two steps. Whoever reads it gets the same latent to the last bit, or nothing.
//   "MVCK" | u32 header bytes | JSON header | f32 arrays, little-endian | sha256 of all before it
import { createHash } from "node:crypto";
import type { SamplerState } from "@moevie/diffusion";
import type { JobSpec } from "@moevie/job-store";
import { bytesOf } from "./tensor-stream.ts";

const MAGIC = "MVCK";
/** Grows when the bytes or the arithmetic of samplers change: results of two versions do not mix. */
const VERSION = 1;
const DIGEST_BYTES = 32;
const PREFIX_BYTES = 8;

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
  const { prompt, negativePrompt, seed, steps, guidance, sampler } = spec;
  const facts = [prompt, negativePrompt, seed, steps, guidance, sampler, bundleDigest, shape];
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex");
}

export function encodeCheckpoint({ fingerprint, step, latent, sampler }: Checkpoint): Uint8Array {
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
  const prefix = Buffer.alloc(PREFIX_BYTES, MAGIC, "latin1");
  prefix.writeUInt32LE(json.length, MAGIC.length);
  const arrays = [latent, ...estimates, ...(lastLatent === undefined ? [] : [lastLatent])];
  const body = Buffer.concat([prefix, json, ...arrays.map(bytesOf)]);
  return Buffer.concat([body, createHash("sha256").update(body).digest()]);
}

/** The state in `bytes`; undefined when they are of another version or damaged. */
export function decodeCheckpoint(bytes: Uint8Array): Checkpoint | undefined {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (all.length < PREFIX_BYTES + DIGEST_BYTES || all.toString("latin1", 0, MAGIC.length) !== MAGIC) return undefined;
  const body = all.subarray(0, all.length - DIGEST_BYTES);
  if (!createHash("sha256").update(body).digest().equals(all.subarray(body.length))) return undefined;
  // The hash holds, so the rest is what some build of moevie wrote.
  const headerBytes = body.readUInt32LE(MAGIC.length);
  const header = JSON.parse(body.toString("utf8", PREFIX_BYTES, PREFIX_BYTES + headerBytes)) as Header;
  if (header.version !== VERSION) return undefined;
  let at = PREFIX_BYTES + headerBytes;
  const next = (): Float32Array => {
    const values = new Float32Array(header.values);
    at += body.copy(bytesOf(values), 0, at, at + values.byteLength);
    return values;
  };
  const latent = next();
  const estimates = Array.from({ length: header.estimates }, next);
  const lastLatent = header.lastLatent ? next() : undefined;
  return {
    fingerprint: header.fingerprint,
    step: header.step,
    latent,
    sampler: { ...header.sampler, estimates, lastLatent },
  };
}
