// `moevie inspect BUNDLE`: what a bundle holds and what one process of each kind needs of memory.
import { resolve } from "node:path";
import type { GraphValue, Manifest, NoiseDenoiser, TokenDenoiser } from "@moevie/bundle";
import { statSync } from "node:fs";
import type { CommandContext, CommandResult, RawFlags } from "../command.ts";
import { UsageError } from "../failure.ts";
import { parameterLines, servicesLines } from "../services-lines.ts";
import { shownBytes } from "../shown-bytes.ts";

export async function inspect(
  _context: CommandContext,
  args: readonly string[],
  flags: RawFlags,
): Promise<CommandResult> {
  const path = args[0] ?? "";
  const folder = resolve(path);
  if (path === "" || statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new UsageError([{ flag: "BUNDLE", value: path, allowed: "the folder of a bundle" }]);
  const { inspectBundle, openBundle } = await import("@moevie/bundle");
  const verified = flags["verify"] === true;
  const bundle = await openBundle(folder, { verify: verified });
  const summary = await inspectBundle(bundle);
  const { denoiser, text, width, height, frameRate, modelFrames, sampler } = bundle.manifest;
  const lines = [
    `${summary.name} (${summary.architecture})`,
    `digest    ${summary.digest}${verified ? " (every file verified)" : ""}`,
    `clip      ${modelFrames} frames of ${width}x${height} at ${frameRate} fps`,
    ...Object.entries(summary.variants).map(
      ([name, { steps, guidance }]) => `${name.padEnd(9)} ${steps} steps of ${sampler}, guidance ${guidance}`,
    ),
    `denoiser  ${shownDenoiser(denoiser)}`,
    `text      at most ${text.maxTokens} tokens`,
    ...parameterLines(summary),
    `files     ${shownBytes(summary.totalBytes)}`,
    ...Object.entries(summary.fileBytes).map(([name, bytes]) => `  ${shownBytes(bytes).padStart(10)}  ${name}`),
    ...servicesLines(summary),
    "graphs    memory of weights in each session, inputs and outputs",
    ...Object.entries(summary.graphs).map(
      ([name, { weightBytesPerSession, inputs, outputs }]) =>
        `  ${shownBytes(weightBytesPerSession).padStart(10)}  ${name}: ${shownValues(inputs)} -> ${shownValues(outputs)}`,
    ),
  ];
  return { json: { folder, verified, ...summary }, lines };
}

/** Names and shapes; of many caches only their number. */
function shownValues(values: readonly GraphValue[]): string {
  const caches = values.filter(({ name }) => name.startsWith("cache"));
  const others = values.filter((value) => !caches.includes(value));
  const shown = others.map(({ name, shape }) => `${name} [${shape.join(", ")}]`);
  return [...shown, ...(caches.length > 0 ? [`${caches.length} caches`] : [])].join(", ");
}

function shownDenoiser(denoiser: Manifest["denoiser"]): string {
  if (denoiser.gate.kind === "token-topk") {
    const { layers, hidden, experts, topK, expertHidden } = denoiser as TokenDenoiser;
    return `${layers} layers, width ${hidden}; ${experts} experts a layer, top ${topK}, inner width ${expertHidden}`;
  }
  const { gate, graphs } = denoiser as NoiseDenoiser;
  return graphs.map((graph, i) => `${graph} for timesteps from ${gate.from[i]}`).join(", ");
}
