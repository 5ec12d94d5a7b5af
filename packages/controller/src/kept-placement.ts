// The newest placement the controllers decided on, in a file or, in Kubernetes, a ConfigMap: whoever leads next finishes it.
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MoevieError, limit } from "@moevie/contracts";
import { PlacementError, parsePlacement } from "@moevie/placement";
import type { ModelExperts, Placement } from "@moevie/placement";
import type { ConfigMapObject, KubernetesObjects, ObjectName } from "./kubernetes-objects.ts";

export interface KeptPlacement extends Placement {
  /** Which of the shards it is for, in its order. */
  readonly members: readonly number[];
}

export interface PlacementKeeper {
  /** Undefined where there is none that fits the model. */
  read(model: ModelExperts): Promise<KeptPlacement | undefined>;
  /** Whole or not at all. `fence` is that of the lease this controller holds. */
  write(kept: KeptPlacement, fence: number): Promise<void>;
}

export class FileKeeper implements PlacementKeeper {
  readonly #file: string;

  constructor(folder: string) {
    this.#file = join(folder, "placement.json");
  }

  async read(model: ModelExperts): Promise<KeptPlacement | undefined> {
    try {
      return parseKept(await readFile(this.#file, "utf8"), model);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw thrown;
    }
  }

  async write(kept: KeptPlacement): Promise<void> {
    const next = `${this.#file}.next`;
    await writeFile(next, JSON.stringify(kept));
    await rename(next, this.#file);
  }
}

const DATA_KEY = "placement.json";
const FENCE_KEY = "fence";
/** Times somebody may be faster. */
const WRITES_MAX = 8;

/** Throws PEER_UNAVAILABLE while the Kubernetes API cannot be asked. */
export class ConfigMapKeeper implements PlacementKeeper {
  readonly #objects: KubernetesObjects;
  readonly #at: ObjectName;

  constructor(objects: KubernetesObjects, at: ObjectName) {
    this.#objects = objects;
    this.#at = at;
  }

  async read(model: ModelExperts): Promise<KeptPlacement | undefined> {
    const found = await this.#objects.readConfigMap(this.#at);
    return parseKept(found?.data?.[DATA_KEY] ?? "", model);
  }

  /** Throws LEASE_LOST when a later leader has written, UNSUPPORTED when no ConfigMap has room for it. */
  async write(kept: KeptPlacement, fence: number): Promise<void> {
    const text = JSON.stringify(kept);
    const bytes = Buffer.byteLength(text);
    if (bytes > limit("keptPlacementBytesMax"))
      throw new MoevieError(
        "UNSUPPORTED",
        `The placement takes ${bytes} bytes; a ConfigMap has room for ${limit("keptPlacementBytesMax")}.`,
      );
    for (let attempt = 0; attempt < WRITES_MAX; attempt++) {
      const found = (await this.#objects.readConfigMap(this.#at)) ?? named(this.#at);
      const seen = Number(found.data?.[FENCE_KEY] ?? 0);
      if (seen > fence)
        throw new MoevieError(
          "LEASE_LOST",
          `The placement was written with fence ${seen}, this controller had ${fence}.`,
        );
      const data = { ...found.data, [DATA_KEY]: text, [FENCE_KEY]: String(fence) };
      if ((await this.#objects.writeConfigMap(this.#at, { ...found, data })) !== undefined) return;
    }
    throw new MoevieError(
      "PEER_UNAVAILABLE",
      `The placement's ConfigMap changed ${WRITES_MAX} times while it was written.`,
    );
  }
}

function named({ namespace, name }: ObjectName): ConfigMapObject {
  return { apiVersion: "v1", kind: "ConfigMap", metadata: { namespace, name } };
}

/** Undefined where `text` is no placement of the model. */
function parseKept(text: string, model: ModelExperts): KeptPlacement | undefined {
  try {
    const value = JSON.parse(text) as { members?: unknown };
    const placement = parsePlacement(value, model);
    const { members } = value;
    if (!Array.isArray(members) || members.length !== placement.shards.length) return undefined;
    return { ...placement, members: members.map(Number) };
  } catch (thrown) {
    if (thrown instanceof PlacementError || thrown instanceof SyntaxError) return undefined;
    throw thrown;
  }
}
