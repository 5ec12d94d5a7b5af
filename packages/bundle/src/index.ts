// Public entry of @moevie/bundle: open, verify and describe a model folder moevie can serve. Never writes, never runs a model.
export { BundleError } from "./bundle-error.ts";
export { graphFor } from "./graph-for.ts";
export { inspectBundle, type BundleSummary, type GraphSummary } from "./inspect-bundle.ts";
export {
  BUNDLE_FORMAT,
  expertsOf,
  isNoiseDenoiser,
  type FileEntry,
  type Gate,
  type GraphEntry,
  type GraphValue,
  type Manifest,
  type NoiseDenoiser,
  type TokenDenoiser,
  type Variant,
} from "./manifest.ts";
export { openBundle, type Bundle, type TensorPlace } from "./open-bundle.ts";
