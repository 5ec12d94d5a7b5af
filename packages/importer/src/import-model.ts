// Imports a folder of weights of any layout that is known, by what its model_index.json says it is.
import { basename, join } from "node:path";
import { readConfigFile } from "./config-file.ts";
import type { FloatType } from "./graph-builder.ts";
import { importStarter } from "./import-starter.ts";
import { readWan } from "./import-wan.ts";
import { modelFolder, writeBundle, type OnRead } from "./write-bundle.ts";

export type ImportOptions = {
  /** Name of the model; the folder's when it is not given. */
  readonly name?: string | undefined;
  readonly precision?: FloatType | undefined;
  /** Read every weight file in full and keep its hash. */
  readonly verify?: boolean | undefined;
  /** What is asked not to show when a request leaves it empty. */
  readonly negativePrompt?: string | undefined;
  readonly onRead?: OnRead | undefined;
};

export type ImportReport = {
  readonly bundle: string;
  readonly bytesWritten: number;
  readonly bytesNamed: number;
  /** What the importer chose where the folder said otherwise. */
  readonly notes: readonly string[];
};

/**
 * Imports `folder` into the bundle folder `outDir` (made, or replaced when it differs). The weights stay where they are. Throws
 * ConfigFileError or SafetensorsError naming file and key or tensor.
 */
export async function importModel(folder: string, outDir: string, options: ImportOptions = {}): Promise<ImportReport> {
  const real = await modelFolder(folder);
  const index = await readConfigFile(join(real, "model_index.json"));
  const kind = index.oneOf("_class_name", ["MoevieStarterPipeline", "WanPipeline"]);
  if (kind === "MoevieStarterPipeline") {
    const written = await importStarter(real, outDir, options.onRead);
    return { bundle: written.folder, ...written, notes: [] };
  }
  const model = await readWan(real, {
    name: options.name ?? basename(real),
    precision: options.precision ?? "f32",
    negativePrompt: options.negativePrompt,
  });
  const written = await writeBundle(real, outDir, model, {
    isHashed: (path) => options.verify === true || !path.endsWith(".safetensors"),
    onRead: options.onRead,
  });
  return { bundle: written.folder, ...written, notes: model.notes };
}
