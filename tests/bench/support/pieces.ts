// What two pieces of a step cost by themselves: a graph handed to its thread, and one evaluation's tensors to a router and back. Started as a
// process of its own it is that router's end: it answers each latent with itself.
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Bundle } from "@moevie/bundle";
import { GrpcPeer, Metrics, OnnxThread, createLogger, implement, serveGrpc } from "@moevie/runtime";
import { latentShape, openJob } from "./denoisers.ts";
import { median } from "./processes.ts";

/** Of one, milliseconds. */
export interface Piece {
  readonly wallMs: number;
  /** Of every process that takes part. */
  readonly cpuMs: number;
}

/** Processor time of this process so far, milliseconds. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** A small graph in a thread of its own, less what the graph itself takes. */
export async function handOver(bundle: Bundle, calls: number): Promise<Piece> {
  const thread = OnnxThread.start({ name: "hand-over", device: "cpu", intraOpThreads: 1 });
  try {
    await thread.load("context", await bundle.graph("context"));
    const { maxTokens, width } = bundle.manifest.text;
    const data = new Float32Array(new SharedArrayBuffer(maxTokens * width * 4));
    const plan = thread.plan("context", { rows: { type: "float32", dims: [1, maxTokens, width], data } });
    const times: number[] = [];
    let [begunMs, graphMs] = [0, 0];
    for (let at = 0; at < 2 * calls; at++) {
      if (at === calls) [begunMs, graphMs] = [cpuMs(), 0];
      const startMs = performance.now();
      const ranMs = (await plan.run()) / 1000;
      graphMs += ranMs;
      if (at >= calls) times.push(performance.now() - startMs - ranMs);
    }
    return { wallMs: median(times), cpuMs: (cpuMs() - begunMs - graphMs) / calls };
  } finally {
    await thread.close();
  }
}

/** One evaluation that computes nothing: the latent to another process and a velocity back, on a stream that stays open. */
export async function evaluationStream(bundle: Bundle, calls: number): Promise<Piece> {
  const folder = mkdtempSync(join(tmpdir(), "moevie-bench-"));
  const child = fork(fileURLToPath(import.meta.url), ["router's end", folder], { execArgv: [] });
  const told = (): Promise<unknown> => new Promise((resolve) => child.once("message", resolve));
  const both = async (): Promise<number> => {
    const answer = told();
    child.send("processor time");
    return cpuMs() + Number(await answer);
  };
  try {
    const { maxTokens, width } = bundle.manifest.text;
    const shape = latentShape(bundle);
    const latent = new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(1);
    const peer = new GrpcPeer("moevie.v1.DenoiseService", (await told()) as string);
    const job = await openJob(bundle, peer, shape, [new Float32Array(maxTokens * width)]);
    const times: number[] = [];
    let begunMs = 0;
    for (let at = 0; at < 2 * calls; at++) {
      if (at === calls) begunMs = await both();
      const startMs = performance.now();
      await job.evaluate(0, latent, 500);
      if (at >= calls) times.push(performance.now() - startMs);
    }
    const usedMs = (await both()) - begunMs;
    job.close();
    peer.close();
    return { wallMs: median(times), cpuMs: usedMs / calls };
  } finally {
    child.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
}

async function routersEnd(folder: string): Promise<void> {
  process.on("disconnect", () => process.exit(1));
  process.on("message", () => process.send?.(cpuMs()));
  const denoise = implement("moevie.v1.DenoiseService", {
    Denoise: async function* (requests) {
      // The text's rows are sent once, before the first latent.
      let isLatent = false;
      for await (const { head, chunk } of requests) {
        isLatent ||= head !== undefined;
        if (head?.latent) yield { head: { velocity: head.latent } };
        else if (isLatent && chunk) yield { chunk };
      }
    },
  });
  const log = await createLogger({ service: "bench", level: "fatal", format: "json" });
  const options = { log, metrics: new Metrics("bench"), reflection: false };
  const server = await serveGrpc({ listen: `unix:${join(folder, "router.sock")}`, services: [denoise], ...options });
  process.send?.(server.address);
}

const [role, folder] = process.argv.slice(2);
if (role === "router's end" && folder !== undefined) await routersEnd(folder);
