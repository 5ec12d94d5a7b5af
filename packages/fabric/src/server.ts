// The shard's end of the exchange: accepts streams, keeps the byte credits, refuses what cannot be served, hands requests to
// the shard and writes its answers. It keeps no row beyond its call.
import { rmSync } from "node:fs";
import { createServer } from "node:http2";
import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import { asMoevieError, limit } from "@moevie/contracts";
import { formatAddress, parseAddress } from "@moevie/runtime";
import { BufferPool } from "./buffer-pool.ts";
import { CreditLedger } from "./credit-ledger.ts";
import type { Holds } from "./body.ts";
import { exchangeError } from "./exchange-error.ts";
import {
  EXCHANGE_PATH,
  GRPC_CONTENT_TYPE,
  HEALTH_CHECK_PATH,
  LINK_SETTINGS,
  SESSION_MEMORY_MB_MAX,
  WINDOW_BYTES,
} from "./link.ts";
import { ServerStream } from "./server-stream.ts";
import { startTimer } from "./timer.ts";
import type { ExchangeHandler } from "./server-stream.ts";

export interface ExchangeServerOptions {
  /** `unix:PATH` or `HOST:PORT`; port 0 takes a free one. */
  readonly listen: string;
  readonly holds: Holds;
  /** Answers one request. Throws a MoevieError to refuse it. */
  readonly handler: ExchangeHandler;
  /** Bytes of request bodies in flight over all streams. */
  readonly creditBytes?: number;
}

export interface ExchangeServer {
  /** The bound address, as peers dial it. */
  readonly address: string;
  /** What grpc.health.v1 answers. */
  setServing(serving: boolean): void;
  /** Tells every router what the shard holds from now on. */
  announce(holds: Holds): void;
  /** Refuses new requests, waits up to `graceMs` for running ones, then closes every stream. */
  close(graceMs: number): Promise<void>;
}

/** State shared by the streams of one server. */
export interface ExchangeHost {
  holds: Holds;
  /** layer · 65536 + expert of every slot. */
  held: ReadonlySet<number>;
  draining: boolean;
  readonly handler: ExchangeHandler;
  readonly ledger: CreditLedger<ServerStream>;
  readonly pool: BufferPool;
}

/** Starts serving. Throws CONFIG_INVALID for an address that cannot be parsed and PEER_UNAVAILABLE for one taken. */
export async function serveExchange(options: ExchangeServerOptions): Promise<ExchangeServer> {
  const creditBytes = options.creditBytes ?? limit("shardCreditBytes");
  const host: ExchangeHost = {
    holds: options.holds,
    held: heldKeys(options.holds),
    draining: false,
    handler: options.handler,
    ledger: new CreditLedger(creditBytes),
    pool: BufferPool.plain(creditBytes),
  };
  const streams = new Set<ServerStream>();
  const sessions = new Set<ServerHttp2Session>();
  let serving = false;
  const server = createServer({ settings: LINK_SETTINGS, maxSessionMemory: SESSION_MEMORY_MB_MAX });
  server.on("session", (session) => {
    session.setLocalWindowSize(WINDOW_BYTES);
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    session.on("error", () => session.destroy());
  });
  server.on("stream", (stream, headers) => {
    stream.on("error", () => stream.destroy());
    const path = headers[":path"];
    if (path === EXCHANGE_PATH) {
      const accepted = new ServerStream(stream, host);
      streams.add(accepted);
      stream.on("close", () => streams.delete(accepted));
    } else if (path === HEALTH_CHECK_PATH) answerHealth(stream, serving);
    else endWith(stream, 12, "unknown method");
  });
  const address = await listen(server, options.listen);
  return {
    address,
    setServing: (value) => {
      serving = value;
    },
    announce: (holds) => {
      host.holds = holds;
      host.held = heldKeys(holds);
      for (const stream of streams) stream.sendHolds();
    },
    close: async (graceMs) => {
      host.draining = true;
      await Promise.race([Promise.all([...streams].map((stream) => stream.idle())), after(graceMs)]);
      for (const session of sessions) session.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

function heldKeys(holds: Holds): Set<number> {
  return new Set(holds.slots.map((slot) => slot.layer * 65_536 + slot.expert));
}

function listen(server: Http2Server, text: string): Promise<string> {
  const address = parseAddress(text, "listen");
  if (address.kind === "unix") rmSync(address.path, { force: true });
  return new Promise((resolve, reject) => {
    server.once("error", (cause) =>
      reject(exchangeError("PEER_UNAVAILABLE", `cannot listen on ${text}`, asMoevieError(cause))),
    );
    server.listen(address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port }, () => {
      const bound = server.address();
      if (address.kind === "unix" || bound === null || typeof bound === "string") resolve(text);
      else resolve(formatAddress({ kind: "tcp", host: address.host, port: bound.port }));
    });
  });
}

/** HealthCheckResponse {status}: 1 serving, 2 not. The one field is cheaper written than generated. */
function answerHealth(stream: ServerHttp2Stream, serving: boolean): void {
  stream.resume();
  stream.respond({ ":status": 200, "content-type": GRPC_CONTENT_TYPE }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.end(Buffer.from([0, 0, 0, 0, 2, 8, serving ? 1 : 2]));
}

function endWith(stream: ServerHttp2Stream, code: number, message: string): void {
  stream.respond(
    { ":status": 200, "content-type": GRPC_CONTENT_TYPE, "grpc-status": String(code), "grpc-message": message },
    { endStream: true },
  );
}

function after(ms: number): Promise<void> {
  return new Promise((resolve) => {
    startTimer(ms, resolve);
  });
}
