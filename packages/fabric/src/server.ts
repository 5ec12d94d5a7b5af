// The shard's end of the exchange: accepts streams, keeps the byte credits, refuses what cannot be served, hands requests to
// the shard and writes its answers. It keeps no row beyond its call.
import { rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Server } from "node:net";
import { asMoevieError, limit } from "@moevie/contracts";
import { formatAddress, parseAddress } from "@moevie/runtime";
import type { GrpcService } from "@moevie/runtime";
import { BufferPool } from "./buffer-pool.ts";
import { adoptSocket } from "./byte-socket.ts";
import { CreditLedger } from "./credit-ledger.ts";
import type { Holds } from "./body.ts";
import { exchangeError } from "./exchange-error.ts";
import { H2Connection } from "./h2-connection.ts";
import type { H2Stream, H2StreamSink } from "./h2-stream.ts";
import type { Headers } from "./hpack.ts";
import { EXCHANGE_PATH } from "./link.ts";
import { ServerStream } from "./server-stream.ts";
import { startTimer } from "./timer.ts";
import { unaryCalls, unarySink } from "./unary-calls.ts";
import type { ExchangeHandlers } from "./server-stream.ts";

/** Routers and probes connected at once. */
const CONNECTIONS_MAX = 1024;

export interface ExchangeServerOptions {
  /** `unix:PATH` or `HOST:PORT`; port 0 takes a free one. */
  readonly listen: string;
  readonly holds: Holds;
  /** Answer one request each. They throw a MoevieError to refuse it. */
  readonly handlers: ExchangeHandlers;
  /** Services with unary calls that the port answers too. */
  readonly services?: readonly GrpcService[];
  /** Bytes of request bodies in flight over all streams. */
  readonly creditBytes?: number;
  /** Folder of memory where routers on a socket file may put segments for their rows; without it they go by the socket. */
  readonly segmentFolder?: string | undefined;
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
  readonly segmentFolder: string | undefined;
  readonly handlers: ExchangeHandlers;
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
    segmentFolder: options.listen.startsWith("unix:") ? options.segmentFolder : undefined,
    handlers: options.handlers,
    ledger: new CreditLedger(creditBytes),
    pool: new BufferPool(creditBytes),
  };
  const streams = new Set<ServerStream>();
  const connections = new Set<H2Connection>();
  let serving = false;
  const ending = new AbortController();
  const calls = unaryCalls(() => serving, options.services ?? [], ending.signal);
  const onStream = (stream: H2Stream, headers: Headers): H2StreamSink => {
    const path = headers.get(":path");
    if (path !== EXCHANGE_PATH) return unarySink(stream, calls.get(path ?? ""));
    const accepted = new ServerStream(stream, host, (closed) => streams.delete(closed));
    streams.add(accepted);
    return accepted.sink;
  };
  const server = createServer({ pauseOnConnect: true }, (accepted) => {
    if (connections.size >= CONNECTIONS_MAX) {
      accepted.destroy();
      return;
    }
    const connection = new H2Connection({ role: "server", onStream, onClose: () => connections.delete(connection) });
    connections.add(connection);
    connection.start(adoptSocket(accepted, connection.parser));
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
      ending.abort();
      await Promise.race([Promise.all([...streams].map((stream) => stream.idle())), after(graceMs)]);
      for (const connection of connections) connection.close();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

function heldKeys(holds: Holds): Set<number> {
  return new Set(holds.slots.map((slot) => slot.layer * 65_536 + slot.expert));
}

function listen(server: Server, text: string): Promise<string> {
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

function after(ms: number): Promise<void> {
  return new Promise((resolve) => {
    startTimer(ms, resolve);
  });
}
