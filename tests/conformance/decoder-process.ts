// A decoder as a process of its own, over its socket.
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { ClipFacts, DecodeHead, DecodeProgress } from "@moevie/contracts";
import { GrpcPeer } from "@moevie/runtime";

export const TIMEOUT_MS = 60_000;

export interface Answer {
  readonly progress: readonly DecodeProgress[];
  readonly mp4: Buffer;
  readonly facts: ClipFacts | undefined;
}

export class DecoderProcess {
  readonly peer: GrpcPeer<"moevie.v1.DecodeService">;
  readonly #stop: () => Promise<void>;

  private constructor(peer: GrpcPeer<"moevie.v1.DecodeService">, stop: () => Promise<void>) {
    this.peer = peer;
    this.#stop = stop;
  }

  /** Serves `bundle`; `runFolder`, made here, holds its sockets and what it keeps meanwhile. */
  static async start(
    bundle: string,
    runFolder: string,
    settings: Readonly<Record<string, string>> = {},
  ): Promise<DecoderProcess> {
    mkdirSync(runFolder, { mode: 0o700 });
    const main = fileURLToPath(new URL("../../packages/decoder/src/main.ts", import.meta.url));
    const env = {
      PATH: process.env["PATH"],
      MOEVIE_GRPC_LISTEN: `unix:${runFolder}/decoder.sock`,
      MOEVIE_HTTP_LISTEN: `unix:${runFolder}/decoder-http.sock`,
      MOEVIE_BUNDLE: bundle,
      MOEVIE_RUN_DIR: runFolder,
      MOEVIE_LOG_LEVEL: "warn",
      ...settings,
    };
    const child = spawn(process.execPath, [main], { env, stdio: ["ignore", "inherit", "inherit"] });
    const peer = new GrpcPeer("moevie.v1.DecodeService", env.MOEVIE_GRPC_LISTEN);
    const stop = async (): Promise<void> => {
      peer.close();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await ended;
    };
    await peer.waitReady({ timeoutMs: TIMEOUT_MS });
    return new DecoderProcess(peer, stop);
  }

  async decode(...parts: readonly (DecodeHead | Buffer)[]): Promise<Answer> {
    const progress: DecodeProgress[] = [];
    const chunks: Buffer[] = [];
    let facts: ClipFacts | undefined;
    for await (const answer of this.peer.bidi("Decode", request(parts), { timeoutMs: TIMEOUT_MS })) {
      if (answer.part === "progress" && answer.progress !== undefined) progress.push(answer.progress);
      if (answer.part === "mp4Chunk" && answer.mp4Chunk !== undefined) chunks.push(answer.mp4Chunk);
      if (answer.part === "facts") facts = answer.facts;
    }
    return { progress, mp4: Buffer.concat(chunks), facts };
  }

  close(): Promise<void> {
    return this.#stop();
  }
}

export async function* request(
  parts: readonly (DecodeHead | Buffer)[],
): AsyncGenerator<{ head?: DecodeHead; chunk?: Buffer }, void> {
  for (const part of parts) yield Buffer.isBuffer(part) ? { chunk: part } : { head: part };
}
