// Settings of a router. The only file here that reads the environment it is given.
import { MoevieError } from "@moevie/contracts";
import { WireType } from "@moevie/fabric";
import { DEVICE_SETTINGS, parseAddress, readConfig } from "@moevie/runtime";
import type { ServiceContext } from "@moevie/runtime";

export interface RouterConfig {
  readonly bundle: string;
  readonly device: string;
  readonly intraOpThreads: number;
  /** Addresses of the shards; the place in the list is the shard's index. */
  readonly shards: readonly string[];
  readonly wire: WireType;
}

/** Throws CONFIG_INVALID naming variable, value and what is allowed. */
export function routerConfig(env: ServiceContext["env"]): RouterConfig {
  const read = readConfig(env, {
    ...DEVICE_SETTINGS,
    MOEVIE_SHARDS: { kind: "list" },
    MOEVIE_WIRE_TYPE: { kind: "enum", values: ["f32", "bf16", "f16"], default: "f32" },
  });
  if (read.MOEVIE_SHARDS.length === 0)
    throw new MoevieError("CONFIG_INVALID", 'MOEVIE_SHARDS is ""; allowed: one or more addresses');
  for (const address of read.MOEVIE_SHARDS) parseAddress(address, "MOEVIE_SHARDS");
  return {
    bundle: read.MOEVIE_BUNDLE,
    device: read.MOEVIE_DEVICE,
    intraOpThreads: read.MOEVIE_INTRA_OP_THREADS,
    shards: read.MOEVIE_SHARDS,
    wire: WireType[read.MOEVIE_WIRE_TYPE],
  };
}
