// Exchange throughput and empty exchange between two processes, beside raw sockets and a raw mapped file that do the same work and a bare HTTP/2
// ping, in turns in one run. The work: the sender gathers random rows, the receiver reads every row, writes every answer row
// and returns a checksum, the sender reads the answer and checks it. Throughput is bytes of rows both ways over a round trip. The same work
// in one process, nothing crossing, is what no path can beat.
import { fork } from "node:child_process";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { Socket, createServer, connect as connectSocket, type NetConnectOpts, type Server } from "node:net";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BufferPool, WireType, connectExchange, fileMapper, serveExchange } from "@moevie/fabric";
import { median, showTarget } from "./support/processes.ts";

const ROW_WIDTH = 256;
const ROWS = 1024;
const SOURCE_ROWS = 4096;
const ROUNDS = 7;
const CALLS_PER_ROUND = 60;
const ROW_BYTES = ROWS * ROW_WIDTH * 4;
const TARGETS = { tcpGigabytesPerSecond: 2, hostGigabytesPerSecond: 8, emptyExchangeMs: 0.2, emptyToPing: 1.3 };
/** As the router's and the shard's default. */
const SEGMENT_FOLDER = "/dev/shm";

/** Exclusive or of all words: reads every value of the rows. */
function checksum(rows: Float32Array): number {
  const words = new Int32Array(rows.buffer, rows.byteOffset, rows.length);
  let [a, b, c, d] = [0, 0, 0, 0];
  for (let at = 0; at < words.length; at += 4) {
    a ^= words[at] as number;
    b ^= words[at + 1] as number;
    c ^= words[at + 2] as number;
    d ^= words[at + 3] as number;
  }
  return (a ^ b ^ c ^ d) >>> 0;
}

/** How a socket reads straight into `bytes`, from `filled` on: the fastest reading Node has, and what the exchange does too. */
function readInto(
  bytes: Uint8Array,
  whole: () => void,
): { buffer: () => Uint8Array; callback: (n: number) => boolean } {
  let filled = 0;
  return {
    buffer: () => bytes.subarray(filled),
    callback: (n) => {
      filled += n;
      if (filled === bytes.length) {
        filled = 0;
        whole();
      }
      return true;
    },
  };
}

/** The raw socket's receiver: a fixed number of bytes in, as many and a checksum out. */
function serveRaw(accepted: Socket): void {
  const input = new Float32Array(ROWS * ROW_WIDTH);
  const answer = Buffer.alloc(4 + input.byteLength);
  const onread = readInto(new Uint8Array(input.buffer), () => {
    answer.writeUInt32LE(checksum(input), 0);
    answer.set(new Uint8Array(input.buffer), 4);
    socket.write(answer);
  });
  const holder = accepted as unknown as Record<string, object | null>;
  const handle = holder["_handle"];
  holder["_handle"] = null;
  const socket = new Socket({ handle, onread } as object);
  socket.setNoDelay(true);
  socket.resume();
}

/** The raw file, rows in front and answers behind, as this process maps it. */
async function mapped(folder: string): Promise<readonly [rows: Float32Array, answer: Float32Array]> {
  const descriptor = openSync(fileIn(folder), "r+");
  const { buffer } = (await fileMapper()).map(descriptor, 2 * ROW_BYTES);
  closeSync(descriptor);
  return [new Float32Array(buffer, 0, ROWS * ROW_WIDTH), new Float32Array(buffer, ROW_BYTES, ROWS * ROW_WIDTH)];
}

function fileIn(folder: string): string {
  return join(SEGMENT_FOLDER, `${basename(folder)}.rows`);
}

/** The raw file's receiver: a byte in says that rows are there, a checksum out that their answer is. */
async function mappedServer(folder: string): Promise<Server> {
  const [rows, answer] = await mapped(folder);
  const told = Buffer.alloc(4);
  return createServer({ noDelay: true }, (socket) => {
    socket.on("data", () => {
      told.writeUInt32LE(checksum(rows), 0);
      answer.set(rows);
      socket.write(told);
    });
  }).listen(join(folder, "mapped.sock"));
}

function portOf(server: { address(): unknown }): number {
  return (server.address() as { port: number }).port;
}

/** The receiving process: every contender's server, addresses sent to the parent. */
async function receiver(folder: string): Promise<void> {
  process.on("disconnect", () => process.exit(1));
  const pool = new BufferPool(16 * ROW_BYTES);
  /** Where a shard lays rows out for its experts. */
  const run = new Float32Array(ROWS * ROW_WIDTH);
  const holds = { digest: "bench", epoch: 1, slots: [{ layer: 0, expert: 0, slot: 0 }] };
  const exchange = (listen: string): ReturnType<typeof serveExchange> =>
    serveExchange({
      listen,
      holds,
      segmentFolder: SEGMENT_FOLDER,
      handlers: {
        rows: ({ rows, out }) => {
          run.set(rows);
          const answered = run.subarray(0, rows.length);
          const facts = { queueUs: 0, computeUs: checksum(rows) };
          if (out !== undefined) {
            out.set(answered);
            return Promise.resolve({ partial: out, ...facts });
          }
          const buffer = pool.take(rows.byteLength);
          const partial = new Float32Array(buffer, 0, rows.length);
          partial.set(answered);
          return Promise.resolve({ partial, ...facts, release: () => pool.give(buffer) });
        },
      },
    });
  const rawTcp = createServer({ pauseOnConnect: true }, serveRaw).listen(0, "127.0.0.1");
  const rawUnix = createServer({ pauseOnConnect: true }, serveRaw).listen(join(folder, "raw.sock"));
  const rawMapped = await mappedServer(folder);
  const ping = createHttp2Server().listen(0, "127.0.0.1");
  await Promise.all(
    [rawTcp, rawUnix, rawMapped, ping].map((server) => new Promise((resolve) => server.once("listening", resolve))),
  );
  const [tcp, unix] = await Promise.all([exchange("127.0.0.1:0"), exchange(`unix:${join(folder, "exchange.sock")}`)]);
  process.send?.({
    rawTcp: portOf(rawTcp),
    rawUnix: join(folder, "raw.sock"),
    ping: portOf(ping),
    tcp: tcp.address,
    unix: unix.address,
  });
}

interface Addresses {
  readonly rawTcp: number;
  readonly rawUnix: string;
  readonly ping: number;
  readonly tcp: string;
  readonly unix: string;
}

/** One contender: a call that does the whole work once. */
interface Contender {
  readonly name: string;
  readonly call: () => Promise<void>;
  readonly close: () => void;
}

const source = Float32Array.from({ length: SOURCE_ROWS * ROW_WIDTH }, (_, at) => Math.sin(at));
/** Rows in no order, each once. */
const rowIndex = Uint32Array.from({ length: ROWS }, (_, at) => (at * 2654435761) % SOURCE_ROWS);

function verify(sent: number, answer: Float32Array): void {
  if (checksum(answer) !== sent) throw new Error("the answer's rows differ from the rows sent");
}

async function rawContender(name: string, to: NetConnectOpts): Promise<Contender> {
  const answer = new Uint8Array(4 + ROW_BYTES);
  const rows = new Float32Array(ROWS * ROW_WIDTH);
  let answered = Promise.withResolvers<void>();
  const socket = connectSocket({ ...to, onread: readInto(answer, () => answered.resolve()) });
  await new Promise((resolve) => socket.once("connect", resolve));
  return {
    name,
    call: async () => {
      answered = Promise.withResolvers<void>();
      rowIndex.forEach((row, at) => rows.set(source.subarray(row * ROW_WIDTH, (row + 1) * ROW_WIDTH), at * ROW_WIDTH));
      socket.write(new Uint8Array(rows.buffer));
      await answered.promise;
      verify(new DataView(answer.buffer).getUint32(0, true), new Float32Array(answer.buffer, 4, ROWS * ROW_WIDTH));
    },
    close: () => socket.destroy(),
  };
}

async function mappedContender(folder: string): Promise<Contender> {
  const [rows, answer] = await mapped(folder);
  let answered = Promise.withResolvers<number>();
  const socket = connectSocket({ path: join(folder, "mapped.sock") });
  socket.on("data", (told: Buffer) => answered.resolve(told.readUInt32LE(0)));
  await new Promise((resolve) => socket.once("connect", resolve));
  const bell = new Uint8Array(1);
  return {
    name: "raw mapped file",
    call: async () => {
      answered = Promise.withResolvers<number>();
      rowIndex.forEach((row, at) => rows.set(source.subarray(row * ROW_WIDTH, (row + 1) * ROW_WIDTH), at * ROW_WIDTH));
      socket.write(bell);
      verify(await answered.promise, answer);
    },
    close: () => socket.destroy(),
  };
}

/** Nothing crosses: rows gathered, read, copied as an answer, and read again. */
function workAlone(): Contender {
  const [rows, answer] = [new Float32Array(ROWS * ROW_WIDTH), new Float32Array(ROWS * ROW_WIDTH)];
  const call = (): Promise<void> => {
    rowIndex.forEach((row, at) => rows.set(source.subarray(row * ROW_WIDTH, (row + 1) * ROW_WIDTH), at * ROW_WIDTH));
    const sent = checksum(rows);
    answer.set(rows);
    verify(sent, answer);
    return Promise.resolve();
  };
  return { name: "the work alone, one process", call, close: () => undefined };
}

async function exchangeContender(
  name: string,
  address: string,
  rows: Uint32Array,
  segmentFolder?: string,
): Promise<Contender> {
  const client = connectExchange(address, { segmentFolder });
  const isReady = (): boolean =>
    client.holds() !== undefined && (segmentFolder === undefined || client.path === "segment");
  while (!isReady()) await new Promise(setImmediate);
  const csr = {
    experts: Uint16Array.of(0),
    offsets: Uint32Array.of(0, rows.length),
    rowIndex: Uint32Array.from(rows.keys()),
    weights: new Float32Array(rows.length).fill(1),
  };
  const fixed = { layer: 0, epoch: 1, attempt: 0, branch: 0, wire: WireType.f32, timeoutMs: 30_000 };
  return {
    name,
    call: async () => {
      const answer = await client.exchange({ ...fixed, source, rows, d: ROW_WIDTH, csr });
      verify(answer.computeUs, answer.partial);
      answer.release();
    },
    close: () => client.close(),
  };
}

async function pingContender(port: number): Promise<Contender> {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  await new Promise((resolve) => session.once("remoteSettings", resolve));
  const call = (): Promise<void> =>
    new Promise((resolve, reject) => {
      session.ping((error) => (error === null ? resolve() : reject(error)));
    });
  return { name: "bare HTTP/2 ping", call, close: () => session.destroy() };
}

async function measure(contenders: readonly Contender[]): Promise<Map<string, number>> {
  const times = new Map(contenders.map(({ name }) => [name, [] as number[]]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const { name, call } of contenders) {
      for (let at = 0; at < CALLS_PER_ROUND; at++) {
        const startMs = performance.now();
        await call();
        if (round > 0) times.get(name)?.push(performance.now() - startMs);
      }
    }
  }
  return new Map([...times].map(([name, values]) => [name, median(values)]));
}

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "moevie-bench-"));
  writeFileSync(fileIn(folder), new Uint8Array(2 * ROW_BYTES), { mode: 0o600 });
  const child = fork(fileURLToPath(import.meta.url), ["receiver", folder], { execArgv: [] });
  try {
    const at = await new Promise<Addresses>((resolve) =>
      child.once("message", (message) => resolve(message as Addresses)),
    );
    const throughput = [
      await rawContender("raw TCP socket", { port: at.rawTcp, host: "127.0.0.1", noDelay: true }),
      await exchangeContender("exchange by TCP", at.tcp, rowIndex),
      await rawContender("raw Unix socket", { path: at.rawUnix }),
      await exchangeContender("exchange by Unix socket", at.unix, rowIndex),
      await mappedContender(folder),
      await exchangeContender("exchange by segment", at.unix, rowIndex, SEGMENT_FOLDER),
      workAlone(),
    ];
    const latency = [
      await pingContender(at.ping),
      await exchangeContender("empty exchange by TCP", at.tcp, new Uint32Array(0)),
      await exchangeContender("empty exchange by Unix socket", at.unix, new Uint32Array(0)),
    ];
    report(await measure(throughput), await measure(latency));
    for (const { close } of [...throughput, ...latency]) close();
  } finally {
    child.kill("SIGKILL");
    for (const path of [folder, fileIn(folder)]) rmSync(path, { recursive: true, force: true });
  }
}

function gigabytesPerSecond(ms: number): number {
  return (2 * ROW_BYTES) / ms / 1e6;
}

function report(throughput: ReadonlyMap<string, number>, latency: ReadonlyMap<string, number>): void {
  console.log(`\n1 MiB of rows there and back, median of ${(ROUNDS - 1) * CALLS_PER_ROUND} calls`);
  for (const [name, ms] of throughput) {
    console.log(
      `  ${name.padEnd(32)} ${ms.toFixed(3).padStart(8)} ms ${gigabytesPerSecond(ms).toFixed(2).padStart(7)} GB/s`,
    );
  }
  console.log("no rows, there and back");
  for (const [name, ms] of latency) console.log(`  ${name.padEnd(32)} ${ms.toFixed(3).padStart(8)} ms`);
  const rate = (name: string): number => gigabytesPerSecond(throughput.get(name) ?? Number.NaN);
  const [tcp, host] = [rate("exchange by TCP"), rate("exchange by segment")];
  const empty = latency.get("empty exchange by TCP") ?? Number.NaN;
  const toPing = empty / (latency.get("bare HTTP/2 ping") ?? Number.NaN);
  showTarget("throughput by TCP", tcp, "GB/s", "at least", TARGETS.tcpGigabytesPerSecond);
  showTarget("throughput by segment", host, "GB/s", "at least", TARGETS.hostGigabytesPerSecond);
  const alone = rate("the work alone, one process");
  console.log(
    `         bound by the work alone, ${alone.toFixed(2)} GB/s, of which this is ${((100 * host) / alone).toFixed(0)} %`,
  );
  showTarget("empty exchange by TCP", empty, "ms", "at most", TARGETS.emptyExchangeMs);
  showTarget("or to a bare HTTP/2 ping", toPing, "x", "at most", TARGETS.emptyToPing);
  const result = {
    tcpGigabytesPerSecond: tcp,
    segmentGigabytesPerSecond: host,
    exchangeToRawSocket:
      (throughput.get("raw TCP socket") ?? Number.NaN) / (throughput.get("exchange by TCP") ?? Number.NaN),
    emptyExchangeMs: empty,
    emptyExchangeToPing: toPing,
    milliseconds: Object.fromEntries([...throughput, ...latency]),
    targets: TARGETS,
    met:
      tcp >= TARGETS.tcpGigabytesPerSecond &&
      host >= TARGETS.hostGigabytesPerSecond &&
      (empty <= TARGETS.emptyExchangeMs || toPing <= TARGETS.emptyToPing),
  };
  console.log(JSON.stringify(result));
}

const [role, folder] = process.argv.slice(2);
if (role === "receiver" && folder !== undefined) await receiver(folder);
else await main();
