// The weights of one part of a model folder: `<stem>.safetensors`, or the shards `<stem>.safetensors.index.json` names. Nothing that can
// run code is read, and nothing outside the folder.
import { readdir, readFile, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import { SafetensorsError } from "@moevie/tensor";
import { openWeights, type Weights } from "./weights.ts";

const PICKLE = /\.(bin|pt|pth|ckpt|pkl)$/i;
/** Names one file of the folder itself. */
const SHARD = /^[^/\\]+\.safetensors$/;
const INDEX_BYTES_MAX = 16 * 1024 * 1024;

/** File of each tensor, as `weight_map` of an index says. Throws SafetensorsError. */
function weightMap(file: string, text: string): ReadonlyMap<string, string> {
  let index: unknown;
  try {
    index = JSON.parse(text);
  } catch (cause) {
    throw new SafetensorsError(file, `is not JSON (${String(cause)})`);
  }
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map) || Object.keys(map).length === 0)
    throw new SafetensorsError(file, "weight_map is no object of files by tensor");
  for (const [tensor, shard] of Object.entries(map))
    if (typeof shard !== "string" || !SHARD.test(shard))
      throw new SafetensorsError(
        file,
        `weight_map has ${JSON.stringify(shard)} for ${JSON.stringify(tensor)}, expected the name of a .safetensors file of the same folder`,
      );
  return new Map(Object.entries(map as Record<string, string>));
}

/** The name of what is in `folder`, once it is sure to lie in it. */
async function inside(folder: string, name: string): Promise<string> {
  const [root, real] = await Promise.all([folder, join(folder, name)].map((path) => realpath(path))).catch(() => {
    throw new SafetensorsError(join(folder, name), "is missing");
  });
  if (real !== undefined && root !== undefined && !real.startsWith(root + sep))
    throw new SafetensorsError(
      join(folder, name),
      `is a link to ${real}, outside the folder: import a folder that holds the files themselves`,
    );
  return name;
}

/**
 * Opens the weights `stem` of `folder`, which graphs will call `location`. Throws SafetensorsError for pickles, for files missing or not well
 * formed, for an index that does not fit its files, and for links that leave the folder.
 */
export async function openWeightFolder(folder: string, location: string, stem: string): Promise<Weights> {
  const names = await readdir(folder).catch(() => {
    throw new SafetensorsError(folder, "is missing");
  });
  const place = (name: string): { file: string; location: string } => ({
    file: join(folder, name),
    location: `${location}/${name}`,
  });
  const index = `${stem}.safetensors.index.json`;
  if (names.includes(index)) {
    const file = join(folder, await inside(folder, index));
    const { size } = await stat(file);
    if (size > INDEX_BYTES_MAX)
      throw new SafetensorsError(file, `is ${size} bytes long, expected at most ${INDEX_BYTES_MAX}`);
    const map = weightMap(file, await readFile(file, "utf8"));
    const shards = await Promise.all([...new Set(map.values())].map((name) => inside(folder, name)));
    const places = new Map(Array.from(map, ([tensor, name]) => [tensor, place(name).location]));
    return openWeights(folder, shards.map(place), places);
  }
  const single = `${stem}.safetensors`;
  if (names.includes(single)) return openWeights(folder, [place(await inside(folder, single))]);
  const pickle = names.find((name) => PICKLE.test(name));
  if (pickle !== undefined)
    throw new SafetensorsError(
      join(folder, pickle),
      `is a pickle, which may run code when read: only ${single} or ${index} is read`,
    );
  throw new SafetensorsError(folder, `holds no ${single} and no ${index}, but ${names.join(", ") || "nothing"}`);
}
