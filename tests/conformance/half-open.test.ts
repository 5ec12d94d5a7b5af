// A connection that goes silent without closing: callers notice, a watch goes on over a new connection or ends with an error that
// says what happened, and a server lets go of a caller that vanished. A proxy between real servers and clients goes dark.
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { VideoClient } from "@moevie/client";
import { MoevieError, type VideoEvent } from "@moevie/contracts";
import {
  GrpcPeer,
  Metrics,
  createLogger,
  implement,
  parseAddress,
  serveGrpc,
  type GrpcServer,
  type Handlers,
} from "@moevie/runtime";
import { afterEach, beforeEach, expect, test } from "vitest";

const SILENCE_MS = 300;
const VIDEO = "videos/6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f";
const NEVER = new Promise<never>(() => undefined);

/** Passes bytes on until it goes dark; a dark connection stays open and carries nothing, as one to a machine that vanished. */
class DarkProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Connections made from now on carry nothing either. */
  dark = false;
  connections = 0;

  constructor(target: string) {
    const to = parseAddress(target, "target");
    if (to.kind !== "tcp") throw new Error("a TCP target is needed");
    this.#server = createServer((near) => {
      this.connections++;
      this.#keep(near);
      if (this.dark) return;
      const far = connect(to.port, to.host);
      this.#keep(far);
      near.pipe(far).pipe(near);
    });
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  darken(): void {
    for (const socket of this.#sockets) socket.unpipe().pause();
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
  }
}

let server: GrpcServer;
let proxy: DarkProxy;
let client: VideoClient;
let address: string;
let watch: Handlers<"moevie.v1.VideoService">["WatchVideo"];
let download: Handlers<"moevie.v1.VideoService">["DownloadVideo"];

const unused = (): Promise<never> => Promise.reject(new MoevieError("UNSUPPORTED", "not here"));

beforeEach(async () => {
  const videos: Handlers<"moevie.v1.VideoService"> = {
    CreateVideo: unused,
    GetVideo: ({ name }) => Promise.resolve({ name }),
    ListVideos: unused,
    DeleteVideo: unused,
    RetryVideo: unused,
    WatchVideo: (request, call) => watch(request, call),
    DownloadVideo: (request, call) => download(request, call),
  };
  server = await serveGrpc({
    listen: "127.0.0.1:0",
    services: [implement("moevie.v1.VideoService", videos)],
    log: await createLogger({ service: "gateway", level: "fatal", format: "json" }),
    metrics: new Metrics("gateway"),
    reflection: false,
    silenceMs: SILENCE_MS,
  });
  server.setServing(true);
  proxy = new DarkProxy(server.address);
  address = await proxy.listen();
  client = new VideoClient(address, { silenceMs: SILENCE_MS });
});
afterEach(async () => {
  client.close();
  proxy.close();
  await server.close(50);
});

const event = (cursor: number, state: VideoEvent["state"] = "VIDEO_STATE_RUNNING") => ({ cursor: `${cursor}`, state });

test("a watch over a connection that went silent goes on over a new one, from its cursor", async () => {
  const asked: string[] = [];
  watch = async function* ({ cursor }) {
    asked.push(cursor);
    if (cursor === "") {
      yield event(1);
      yield event(2);
      await NEVER;
    }
    yield event(3);
    yield event(4, "VIDEO_STATE_COMPLETED");
  };
  const seen: string[] = [];
  for await (const { cursor } of client.watchVideo(VIDEO)) {
    seen.push(cursor);
    if (cursor === "2") proxy.darken();
  }
  expect(seen).toEqual(["1", "2", "3", "4"]);
  expect(asked).toEqual(["", "2"]);
  expect(proxy.connections).toBe(2);
});

test("a watch that says nothing goes on over a new connection though the old one answers pings", async () => {
  watch = async function* ({ cursor }) {
    if (cursor === "1") return yield event(2, "VIDEO_STATE_COMPLETED");
    yield event(1);
    await NEVER;
  };
  const seen: string[] = [];
  for await (const { cursor } of client.watchVideo(VIDEO)) seen.push(cursor);
  expect(seen).toEqual(["1", "2"]);
  expect(proxy.connections).toBe(2);
});

test("a server that stays away ends the watch with an error that says so", async () => {
  watch = async function* () {
    yield event(1);
    await NEVER;
  };
  const startMs = performance.now();
  const watching = (async () => {
    for await (const { cursor } of client.watchVideo(VIDEO)) {
      expect(cursor).toBe("1");
      proxy.dark = true;
      proxy.darken();
    }
  })();
  await expect(watching).rejects.toMatchObject({
    reason: "PEER_UNAVAILABLE",
    message: `The server at ${address} was silent for ${SILENCE_MS / 1000} s.`,
  });
  expect(performance.now() - startMs).toBeGreaterThanOrEqual(3 * SILENCE_MS);
  expect(performance.now() - startMs).toBeLessThan(20 * SILENCE_MS);
});

test("heartbeats keep a watch alive, and its pings are taken", async () => {
  watch = async function* () {
    for (let beat = 0; beat < 30; beat++) {
      yield { cursor: "", heartbeat: true, state: "VIDEO_STATE_RUNNING" as const };
      await new Promise((resolve) => setTimeout(resolve, SILENCE_MS / 6));
    }
    yield event(1, "VIDEO_STATE_COMPLETED");
  };
  let beats = 0;
  for await (const { heartbeat } of client.watchVideo(VIDEO)) if (heartbeat) beats++;
  expect(beats).toBe(30);
  expect(proxy.connections).toBe(1);
});

test("a download ends when its connection went silent, whether it began or not", async () => {
  download = async function* () {
    yield { chunk: Buffer.from([1]) };
    await NEVER;
  };
  const begun = (async () => {
    for await (const chunk of client.downloadVideo(VIDEO)) {
      expect(chunk).toEqual(Buffer.from([1]));
      proxy.dark = true;
      proxy.darken();
    }
  })();
  await expect(begun).rejects.toMatchObject({ reason: "PEER_UNAVAILABLE" });
  const never = client.downloadVideo(VIDEO)[Symbol.asyncIterator]().next();
  await expect(never).rejects.toMatchObject({ reason: "PEER_UNAVAILABLE" });
});

test("a call to a server that never answered leaves the next one a new connection", async () => {
  proxy.dark = true;
  await expect(client.getVideo(VIDEO, { timeoutMs: SILENCE_MS })).rejects.toMatchObject({ reason: "DEADLINE" });
  proxy.dark = false;
  expect(await client.getVideo(VIDEO)).toMatchObject({ name: VIDEO });
});

test("a service's call over a connection that went silent ends, and the next one has a new connection", async () => {
  const peer = new GrpcPeer("moevie.v1.VideoService", address, SILENCE_MS);
  await peer.waitReady({ timeoutMs: 5000 });
  proxy.darken();
  const call = peer.unary("GetVideo", { name: VIDEO }, { timeoutMs: 50_000 });
  await expect(call).rejects.toMatchObject({ reason: "PEER_UNAVAILABLE" });
  expect(await peer.unary("GetVideo", { name: VIDEO }, { timeoutMs: 5000 })).toMatchObject({ name: VIDEO });
  peer.close();
});

test("a server lets go of a caller that vanished", async () => {
  const gone = Promise.withResolvers<void>();
  watch = async function* (_request, call) {
    call.signal.addEventListener("abort", () => gone.resolve());
    yield event(1);
    await NEVER;
  };
  const vanished = new VideoClient(address, { silenceMs: 50_000 });
  const watching = vanished.watchVideo(VIDEO)[Symbol.asyncIterator]();
  await watching.next();
  proxy.darken();
  await gone.promise;
  vanished.close();
});
