// The gateway's HTTP paths: the machine's metrics on one page; finished clips and what lies beside them by id, with byte ranges.
import type { IncomingMessage, ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { asMoevieError, GRPC_CODE, type MoevieError } from "@moevie/contracts";
import type { Companion } from "@moevie/job-store";
import type { HttpHandler } from "@moevie/runtime";
import { openClip } from "./clip-bytes.ts";
import type { MetricsPeer } from "./config.ts";
import type { Gateway } from "./gateway.ts";
import { expertLoads, mergedMetrics } from "./metrics-page.ts";

const FILE = /^\/files\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([a-z0-9.]+)$/;
const CONTENT_TYPES = {
  mp4: "video/mp4",
  "thumbnail.jpg": "image/jpeg",
  "sprites.jpg": "image/jpeg",
  "credentials.json": "application/json",
} as const satisfies Readonly<Record<"mp4" | Companion, string>>;
type FileKind = keyof typeof CONTENT_TYPES;
const HTTP_STATUS: Readonly<Record<number, number>> = {
  [GRPC_CODE.NOT_FOUND]: 404,
  [GRPC_CODE.FAILED_PRECONDITION]: 409,
  [GRPC_CODE.RESOURCE_EXHAUSTED]: 503,
  [GRPC_CODE.UNAVAILABLE]: 503,
};

export function gatewayHttp(gateway: Gateway, peers: readonly MetricsPeer[]): HttpHandler {
  return async (request, response) => {
    const path = new URL(request.url ?? "/", "http://localhost").pathname;
    if (request.method !== "GET" && request.method !== "HEAD") return false;
    if (path === "/metrics") {
      response.writeHead(200, { "content-type": gateway.metrics.contentType });
      response.end(await mergedMetrics(await gateway.metrics.text(), peers));
      return true;
    }
    if (path === "/experts") {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify(await expertLoads(peers)));
      return true;
    }
    const [, id = "", file = ""] = FILE.exec(path) ?? [];
    if (!isFileKind(file)) return false;
    await gateway.calls
      .during("downloads", () => sendFile(gateway, { id, file }, request, response))
      .catch((thrown: unknown) => sendError(asMoevieError(thrown), response));
    return true;
  };
}

function isFileKind(name: string): name is FileKind {
  return Object.hasOwn(CONTENT_TYPES, name);
}

async function sendFile(
  gateway: Gateway,
  { id, file }: { readonly id: string; readonly file: FileKind },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const clip = await openClip(gateway, id, file);
  const range = rangeOf(request.headers.range, clip.sizeBytes);
  if (range === "bad") {
    response.writeHead(416, { "content-range": `bytes */${clip.sizeBytes}` }).end();
    return;
  }
  const { start, end } = range ?? { start: 0, end: clip.sizeBytes - 1 };
  response.writeHead(range === undefined ? 200 : 206, {
    "content-type": CONTENT_TYPES[file],
    "content-length": end - start + 1,
    "accept-ranges": "bytes",
    ...(range === undefined ? {} : { "content-range": `bytes ${start}-${end}/${clip.sizeBytes}` }),
  });
  if (request.method === "HEAD") response.end();
  else await pipeline(clip.read({ start, end }), response).catch(() => response.destroy());
}

function sendError(error: MoevieError, response: ServerResponse): void {
  if (error.retryAfterMs !== undefined) response.setHeader("retry-after", Math.ceil(error.retryAfterMs / 1000));
  response.writeHead(HTTP_STATUS[GRPC_CODE[error.code]] ?? 500, { "content-type": "application/json" });
  response.end(JSON.stringify({ error: { reason: error.reason, message: error.message } }));
}

/** One byte range of the header, undefined without one (or with several: the whole file is allowed then), "bad" outside the file. */
function rangeOf(header: string | undefined, sizeBytes: number): { start: number; end: number } | "bad" | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) return undefined;
  const suffix = match[1] === "";
  const start = suffix ? Math.max(0, sizeBytes - Number(match[2])) : Number(match[1]);
  const end = suffix || match[2] === "" ? sizeBytes - 1 : Math.min(Number(match[2]), sizeBytes - 1);
  return start > end || start >= sizeBytes ? "bad" : { start, end };
}
