// `moevie doctor`: what this machine can run, and what is wrong. Native libraries are tried in processes of their own,
// so that a crash in one is a finding and not the end. Changes nothing.
import { statfsSync } from "node:fs";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { join } from "node:path";
import type { CommandContext, CommandResult } from "../command.ts";
import { CommandError } from "../failure.ts";
import { checkPortFree } from "../listen-address.ts";
import { runNode } from "../run-child.ts";
import { shownBytes } from "../shown-bytes.ts";

interface Finding {
  readonly name: string;
  readonly status: "ok" | "warning" | "wrong";
  readonly found: string;
  /** What to do about it. */
  readonly advice?: string;
}

/** Measured need of a cluster of the starter model, with room for a clip in the making. */
const MEMORY_BYTES_MIN = 2 * 1024 ** 3;
const DISK_BYTES_MIN = 1024 ** 3;
const CORES_MIN = 2;
const NODE_MAJOR = 24;
const PORTS = [
  ["--grpc-port", 7900],
  ["--http-port", 7901],
] as const;

const PROVIDERS_PROBE = `
import { createRequire } from "node:module";
import { readdirSync } from "node:fs";
import { dirname, join } from "node:path";
const require = createRequire(join(process.cwd(), "probe.js"));
const ort = require("onnxruntime-node");
const folder = join(dirname(require.resolve("onnxruntime-node/package.json")), "bin");
const files = readdirSync(folder, { recursive: true }).filter((name) => name.includes(process.platform) && name.includes(process.arch)).join(" ");
console.log(JSON.stringify({ backends: ort.listSupportedBackends().map((b) => b.name), cuda: files.includes("providers_cuda"), tensorrt: files.includes("providers_tensorrt") }));
`;
const CODECS_PROBE = `
import { Codec } from "node-av";
const has = (name) => { const codec = Codec.findEncoderByName(name); return codec !== null && codec !== undefined; };
console.log(JSON.stringify({ libx264: has("libx264"), h264_nvenc: has("h264_nvenc") }));
process.exit(0);
`;

async function probe(
  context: CommandContext,
  packageName: string,
  program: string,
): Promise<Record<string, unknown> | string> {
  const cwd = join(context.config.root, "packages", packageName);
  const end = await runNode(context, ["--input-type=module", "-e", program], {
    capture: true,
    cwd,
    interruption: context.interruption,
  });
  try {
    return JSON.parse(end.stdout) as Record<string, unknown>;
  } catch {
    return /Error[^:]*: (.*)/.exec(end.stderr)?.[1] ?? `the probe ended with exit code ${end.exitCode}`;
  }
}

async function providers(context: CommandContext): Promise<Finding[]> {
  const facts = await probe(context, "runtime", PROVIDERS_PROBE);
  if (typeof facts === "string")
    return [
      {
        name: "provider cpu",
        status: "wrong",
        found: `ONNX Runtime does not load: ${facts}`,
        advice: "remove node_modules and run ./moevie again",
      },
    ];
  const cpu = Array.isArray(facts["backends"]) && facts["backends"].includes("cpu");
  const optional = (name: string): Finding => ({
    name: `provider ${name}`,
    status: "ok",
    found: facts[name] === true ? "its library is present" : "not present; MOEVIE_DEVICE must be cpu",
  });
  return [
    { name: "provider cpu", status: cpu ? "ok" : "wrong", found: cpu ? "loads" : "missing from ONNX Runtime" },
    optional("cuda"),
    optional("tensorrt"),
  ];
}

async function codecs(context: CommandContext): Promise<Finding[]> {
  const facts = await probe(context, "decoder", CODECS_PROBE);
  if (typeof facts === "string")
    return [
      {
        name: "codec h264",
        status: "wrong",
        found: `FFmpeg does not load: ${facts}`,
        advice: "remove node_modules and run ./moevie again",
      },
    ];
  const found = facts["libx264"] === true;
  return [
    {
      name: "codec h264",
      status: found ? "ok" : "wrong",
      found: found ? "libx264 encodes" : "no libx264 encoder in FFmpeg",
    },
    {
      name: "codec h264_nvenc",
      status: "ok",
      found: facts["h264_nvenc"] === true ? "compiled in; needs an NVIDIA driver" : "not compiled in",
    },
  ];
}

function machine(): Finding[] {
  const major = Number(process.versions.node.split(".")[0]);
  const cores = availableParallelism();
  const memory = totalmem();
  return [
    {
      name: "node",
      status: major === NODE_MAJOR ? "ok" : "wrong",
      found: process.versions.node,
      ...(major === NODE_MAJOR ? {} : { advice: `Node ${NODE_MAJOR} is needed: start through ./moevie` }),
    },
    {
      name: "cores",
      status: cores >= CORES_MIN ? "ok" : "warning",
      found: `${cores} (${cpus()[0]?.model.trim() ?? "unknown"})`,
      ...(cores >= CORES_MIN ? {} : { advice: "a clip takes longer with fewer than two" }),
    },
    {
      name: "memory",
      status: memory >= MEMORY_BYTES_MIN ? "ok" : "wrong",
      found: `${shownBytes(memory)}, ${shownBytes(freemem())} free`,
      ...(memory >= MEMORY_BYTES_MIN ? {} : { advice: `${shownBytes(MEMORY_BYTES_MIN)} are needed` }),
    },
  ];
}

function disk(name: string, folder: string): Finding {
  try {
    const facts = statfsSync(folder);
    const free = facts.bavail * facts.bsize;
    return {
      name,
      status: free >= DISK_BYTES_MIN ? "ok" : "wrong",
      found: `${shownBytes(free)} free in ${folder}`,
      ...(free >= DISK_BYTES_MIN ? {} : { advice: `${shownBytes(DISK_BYTES_MIN)} are needed` }),
    };
  } catch (error) {
    return {
      name,
      status: "wrong",
      found: `${folder} cannot be used (${(error as NodeJS.ErrnoException).code ?? "unknown"})`,
    };
  }
}

async function port(flag: string, number: number): Promise<Finding> {
  try {
    await checkPortFree(flag, "127.0.0.1", number);
    return { name: `port ${number}`, status: "ok", found: "free" };
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return {
      name: `port ${number}`,
      status: "warning",
      found: "taken",
      advice: `a server may be running; or start another with ${flag}`,
    };
  }
}

export async function doctor(context: CommandContext): Promise<CommandResult> {
  const findings = [
    ...machine(),
    disk("temporary disk", context.config.temporaryDir),
    disk("cache disk", context.config.cacheDir),
    ...(await Promise.all(PORTS.map(([flag, number]) => port(flag, number)))),
    ...(await Promise.all([providers(context), codecs(context)])).flat(),
  ];
  const wrong = findings.filter((finding) => finding.status === "wrong");
  const marks = { ok: "ok     ", warning: "warning", wrong: "WRONG  " } as const;
  const lines = findings.map(
    ({ name, status, found, advice }) =>
      `${marks[status]}  ${name.padEnd(18)}  ${found}${advice === undefined ? "" : `: ${advice}`}`,
  );
  lines.push(
    wrong.length === 0
      ? "this machine can run moevie"
      : `this machine cannot run moevie: ${wrong.map((finding) => finding.name).join(", ")}`,
  );
  return { json: { ok: wrong.length === 0, findings }, lines, failed: wrong.length > 0 };
}
