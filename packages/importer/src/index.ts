// Public entry of @moevie/importer: model folders in, bundles out. Writes graphs and manifests; never runs a model.
export { ConfigFileError, readConfigFile } from "./config-file.ts";
export { addGatedExpert, addMoeLayer, addReluExpert, expertGraph, expertSlotsGraph } from "./experts.ts";
export { addGate, type GateOptions } from "./gate.ts";
export { GraphBuilder } from "./graph-builder.ts";
export { importStarter } from "./import-starter.ts";
export { decoderGraph, decoderSizes } from "./causal-decoder.ts";
export { openWeightFile, type Weights } from "./weights.ts";
export { relativeBucket, textEncoderGraph, textEncoderSizes } from "./text-encoder.ts";
export { wanDitGraph, wanDitSizes } from "./wan-dit.ts";
export { openWeightFolder } from "./weight-folder.ts";
export { wanVaeSizes } from "./wan-vae.ts";
export { wanDecoderGraph, wanEncoderGraph } from "./wan-vae-graphs.ts";
export { importModel, type ImportReport } from "./import-model.ts";
