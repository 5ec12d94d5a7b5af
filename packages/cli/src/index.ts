// Public entry of the CLI for tests and benches: a whole cluster on this machine, started and stopped from code.
export { systemClock, type Clock } from "./clock.ts";
export { readCliConfig, type CliConfig } from "./config.ts";
export {
  startEmbeddedCluster,
  type EmbeddedCluster,
  type EmbeddedClusterOptions,
} from "./supervisor/embedded-cluster.ts";
