// Decodes a clip latent frame by latent frame with the bundle's two decoder graphs, handing the caches on.
import type { Dense } from "./safetensors-file.ts";
import { carriedCaches, f32, type BundleSessions, type Feeds } from "./sessions.ts";

/** Frames, each flat [3, H, W], of normalised latent frames [1, C, h, w]. */
export async function decodeClip(sessions: BundleSessions, latents: readonly Dense[]): Promise<Float32Array[]> {
  const frames: Float32Array[] = [];
  let caches: Feeds = {};
  for (const [index, { shape, data }] of latents.entries()) {
    const out = await sessions.run(index === 0 ? "decoder.first" : "decoder.next", { z: f32(shape, data), ...caches });
    const made = out[index === 0 ? "frame" : "frames"]!;
    const [count, size] = [made.dims[0]!, made.size / made.dims[0]!];
    for (let frame = 0; frame < count; frame++)
      frames.push((made.data as Float32Array).slice(frame * size, (frame + 1) * size));
    caches = carriedCaches(out);
  }
  return frames;
}
