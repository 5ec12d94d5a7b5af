// The decoder's settings: the only file of this package that sees the environment.
import { tmpdir } from "node:os";
import { limit } from "@moevie/contracts";
import { DEVICE_SETTINGS, readConfig } from "@moevie/runtime";

export interface DecoderConfig {
  readonly bundleFolder: string;
  readonly device: string;
  readonly threads: number;
  /** Folder of temporary files. */
  readonly temporaryFolder: string;
  /** Pixels a side of the tiles that pictures are decoded in, for devices without room for whole ones; 0: whole. */
  readonly tile: number;
  /** Folder of tensors that requests may name; empty: they may not. */
  readonly referenceDir: string;
}

/** Throws CONFIG_INVALID. */
export function decoderConfig(env: Readonly<Record<string, string | undefined>>): DecoderConfig {
  const config = readConfig(env, {
    ...DEVICE_SETTINGS,
    MOEVIE_RUN_DIR: { kind: "path", default: tmpdir() },
    MOEVIE_REFERENCE_DIR: { kind: "path", default: "" },
    MOEVIE_DECODE_TILE: { kind: "int", min: 0, max: limit("sidePixelsMax"), default: 0 },
  });
  return Object.freeze({
    bundleFolder: config.MOEVIE_BUNDLE,
    device: config.MOEVIE_DEVICE,
    threads: config.MOEVIE_INTRA_OP_THREADS,
    temporaryFolder: config.MOEVIE_RUN_DIR,
    referenceDir: config.MOEVIE_REFERENCE_DIR,
    tile: config.MOEVIE_DECODE_TILE,
  });
}
