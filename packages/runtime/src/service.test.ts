// The edges of a service over real sockets: calls, streams, errors, cancel, health, drain signals through the pipe.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { MoevieError } from "@moevie/contracts";
import { GrpcPeer } from "./grpc-client.ts";
import { implement, serveGrpc, type GrpcServer, type GrpcServerOptions, type Handlers } from "./grpc-server.ts";
import { createLogger } from "./logger.ts";
import { Metrics } from "./metrics.ts";

/** As /proc/net/tcp has it. */
const ESTABLISHED = "01";

const folder = mkdtempSync(join(tmpdir(), "moevie-edge-"));
let server: GrpcServer | undefined;
let peer: GrpcPeer<"moevie.v1.DenoiseService"> | undefined;
afterEach(async () => {
  peer?.close();
  await server?.close(100);
  rmSync(folder, { recursive: true, force: true });
});

async function serve(
  handlers: Partial<Handlers<"moevie.v1.DenoiseService">>,
  listen = `unix:${folder}-a.sock`,
  options: Pick<GrpcServerOptions, "connectionAgeMs" | "silenceMs"> = {},
): Promise<Metrics> {
  const metrics = new Metrics("test");
  const log = await createLogger({ service: "test", level: "fatal", format: "json" });
  const full: Handlers<"moevie.v1.DenoiseService"> = {
    Denoise: async function* () {
      yield {};
    },
    ...handlers,
  };
  server = await serveGrpc({
    listen,
    services: [implement("moevie.v1.DenoiseService", full)],
    log,
    metrics,
    reflection: true,
    ...options,
  });
  server.setServing(true);
  peer = new GrpcPeer("moevie.v1.DenoiseService", server.address);
  await peer.waitReady({ timeoutMs: 5000 });
  return metrics;
}

async function* messages<T>(...items: T[]): AsyncIterable<T> {
  yield* items;
}

/** A handler that answers nothing but `reason`. */
function failing(reason: Error): Handlers<"moevie.v1.DenoiseService">["Denoise"] {
  return () => ({ [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(reason) }) });
}

/** Sends all of `requests` and reads to the end. */
async function denoiseAll(requests: AsyncIterable<{ chunk?: Buffer }>): Promise<void> {
  for await (const answer of peer?.bidi("Denoise", requests, { timeoutMs: 20_000 }) ?? []) void answer;
}

describe("gRPC edges", () => {
  it("stream both ways and count the call", async () => {
    const metrics = await serve({
      Denoise: async function* (requests) {
        for await (const { head, chunk } of requests)
          yield head === undefined
            ? { chunk: chunk ?? Buffer.alloc(0) }
            : { head: { velocity: { elementType: "ELEMENT_TYPE_F32", shape: head.latent?.shape ?? [] } } };
      },
    });
    const seen: unknown[] = [];
    for await (const answer of peer?.bidi(
      "Denoise",
      messages(
        { head: { timestep: 3, latent: { elementType: "ELEMENT_TYPE_F32" as const, shape: [1, 2] } } },
        { chunk: Buffer.from([1, 2, 3]) },
      ),
      { timeoutMs: 5000 },
    ) ?? [])
      seen.push(answer.head?.velocity?.shape ?? [...(answer.chunk ?? [])]);
    expect(seen).toEqual([
      [1, 2],
      [1, 2, 3],
    ]);
    expect(await metrics.text()).toContain(
      'moevie_rpc_requests_total{rpc_service="moevie.v1.DenoiseService",method="Denoise",code="OK",service="test"} 1',
    );
  });

  it("carry reason, violations and retry delay of an error to the caller", async () => {
    await serve(
      {
        Denoise: failing(
          new MoevieError("INVALID_FIELD", "bad", {
            violations: [{ field: "a", description: "b" }],
            retryAfterMs: 1500,
          }),
        ),
      },
      "127.0.0.1:0",
    );
    const error = await denoiseAll(messages({})).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      reason: "INVALID_FIELD",
      message: "bad",
      violations: [{ field: "a", description: "b" }],
      retryAfterMs: 1500,
    });
  });

  it("hide what an unknown error says", async () => {
    await serve({ Denoise: failing(new Error("secret path")) });
    const error = await denoiseAll(messages({})).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ reason: "INTERNAL", message: "Something unexpected went wrong." });
  });

  it("let a caller's abort reach the handler", async () => {
    const gate = Promise.withResolvers<void>();
    const felt = Promise.withResolvers<void>();
    await serve({
      Denoise: async function* (_requests, call) {
        call.signal.addEventListener("abort", () => felt.resolve());
        gate.resolve();
        await felt.promise;
        yield {};
      },
    });
    const abort = new AbortController();
    const reading = (async () => {
      for await (const answer of peer?.bidi("Denoise", messages({}), { timeoutMs: 5000, signal: abort.signal }) ?? [])
        void answer;
    })().catch((thrown: unknown) => thrown);
    await gate.promise;
    abort.abort();
    await felt.promise;
    expect(await reading).toMatchObject({ reason: "CANCELLED" });
  });

  it("send a tensor of many chunks without a listener more for each wait", async () => {
    const warnings: string[] = [];
    const note = (warning: Error): void => void warnings.push(`${warning.name}: ${warning.message}`);
    process.on("warning", note);
    let received = 0;
    await serve({
      Denoise: async function* (requests) {
        for await (const { chunk } of requests) received += chunk?.length ?? 0;
        yield {};
      },
    });
    const chunk = Buffer.alloc(16 * 1024);
    await denoiseAll(messages(...Array.from({ length: 800 }, () => ({ chunk }))));
    process.off("warning", note);
    expect(received).toBe(800 * chunk.length);
    expect(warnings).toEqual([]);
  });

  it("replace connections as they age, and no call notices, long or short", async () => {
    await serve(
      {
        Denoise: async function* (requests) {
          for await (const { chunk } of requests) yield { chunk: chunk ?? Buffer.alloc(0) };
        },
      },
      "127.0.0.1:0",
      { connectionAgeMs: 50 },
    );
    // Open over many ages of its connection.
    const long = peer?.open("Denoise", { timeoutMs: 20_000 });
    for (let call = 0; call < 100; call++) {
      await long?.send({ chunk: Buffer.of(call) });
      expect((await long?.receive())?.chunk).toEqual(Buffer.of(call));
      await denoiseAll(messages({ chunk: Buffer.of(1) }));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    long?.end();
    expect(await long?.receive()).toBeUndefined();
  });

  it("keep a call whose connection is replaced while both ends ask for signs of life", async () => {
    const silenceMs = 1000;
    await serve(
      {
        Denoise: async function* (requests) {
          for await (const { chunk } of requests) yield { chunk: chunk ?? Buffer.alloc(0) };
        },
      },
      "127.0.0.1:0",
      { connectionAgeMs: 50, silenceMs },
    );
    const lively = new GrpcPeer("moevie.v1.DenoiseService", server?.address ?? "", silenceMs);
    const long = lively.open("Denoise", { timeoutMs: 20_000 });
    for (let call = 0; call < 3; call++) {
      await long.send({ chunk: Buffer.of(call) });
      expect((await long.receive())?.chunk).toEqual(Buffer.of(call));
      await new Promise((resolve) => setTimeout(resolve, silenceMs));
    }
    lively.close();
  });

  it("have the kernel look after connections too: one that is being replaced has no other sign of life", async () => {
    await serve({}, "127.0.0.1:0");
    await denoiseAll(messages({}));
    const port = Number(server?.address.split(":").at(-1)).toString(16).toUpperCase().padStart(4, "0");
    const ends = readFileSync("/proc/net/tcp", "utf8")
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .filter(
        ([, local = "", remote = "", state]) => state === ESTABLISHED && `${local} ${remote}`.includes(`:${port}`),
      );
    // "02:...": the timer that runs is the one of keep-alive.
    expect(ends.map(([, , , , , timer]) => timer?.slice(0, 2))).toEqual(["02", "02"]);
  });

  it("let a deadline reach the handler, and the caller", async () => {
    const felt = Promise.withResolvers<number>();
    await serve({
      Denoise: async function* (_requests, call) {
        call.signal.addEventListener("abort", () => felt.resolve(call.deadlineMs));
        await felt.promise;
        yield {};
      },
    });
    const startMs = Date.now();
    const reading = (async () => {
      for await (const answer of peer?.bidi("Denoise", messages({}), { timeoutMs: 200 }) ?? []) void answer;
    })();
    await expect(reading).rejects.toMatchObject({ reason: "DEADLINE" });
    expect(await felt.promise).toBeGreaterThanOrEqual(startMs + 100);
  });

  it("end a server whose handler does not end, when its grace is over", async () => {
    const entered = Promise.withResolvers<void>();
    const felt = Promise.withResolvers<void>();
    await serve({
      Denoise: async function* (_requests, call) {
        entered.resolve();
        call.signal.addEventListener("abort", () => felt.resolve());
        await new Promise(() => undefined);
        yield {};
      },
    });
    const reading = (async () => {
      for await (const answer of peer?.bidi("Denoise", messages({}), { timeoutMs: 20_000 }) ?? []) void answer;
    })().catch((thrown: unknown) => thrown);
    await entered.promise;
    await server?.close(50);
    await felt.promise;
    expect(await reading).toBeInstanceOf(MoevieError);
    server = undefined;
  });

  it("tell an open call's error though it came before anybody listened", async () => {
    await serve({
      Denoise: failing(new MoevieError("BUNDLE_MISMATCH", "Another bundle.")),
    });
    const call = peer?.open("Denoise", { timeoutMs: 5000 });
    // More than the transport takes: sending waits until the call is over.
    for (let at = 0; at < 40; at++) await call?.send({ chunk: Buffer.alloc(1_048_576) });
    await expect(call?.receive()).rejects.toMatchObject({ reason: "BUNDLE_MISMATCH" });
  });

  it("name the peer that never becomes ready", async () => {
    peer = new GrpcPeer("moevie.v1.DenoiseService", `unix:${folder}-nobody.sock`);
    await expect(peer.waitReady({ timeoutMs: 60 })).rejects.toMatchObject({ reason: "PEER_UNAVAILABLE" });
  });

  it("refuse an address that is taken, naming the setting", async () => {
    await serve({}, "127.0.0.1:0");
    const log = await createLogger({ service: "test", level: "fatal", format: "json" });
    await expect(
      serveGrpc({ listen: server?.address ?? "", services: [], log, metrics: new Metrics("x"), reflection: false }),
    ).rejects.toMatchObject({
      reason: "CONFIG_INVALID",
      message: expect.stringContaining("MOEVIE_GRPC_LISTEN") as string,
    });
  });
});
