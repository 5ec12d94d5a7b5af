// The HTTP edge of every service: /livez, /readyz and /metrics, and what a service adds to them.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { rm } from "node:fs/promises";
import { MoevieError } from "@moevie/contracts";
import { formatAddress, parseAddress } from "./address.ts";
import type { Metrics } from "./metrics.ts";

/** Answers a request and says whether it was its own. */
export type HttpHandler = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>;

export interface HttpEdge {
  readonly address: string;
  setReady(ready: boolean): void;
  /** Adds a service's own paths; they are asked first. */
  use(handler: HttpHandler): void;
  close(): Promise<void>;
}

/** Binds and starts. Throws CONFIG_INVALID when the address cannot be had. */
export async function serveHttp(listen: string, metrics: Metrics): Promise<HttpEdge> {
  const address = parseAddress(listen, "MOEVIE_HTTP_LISTEN");
  let ready = false;
  const handlers: HttpHandler[] = [];
  const server = createServer((request, response) => {
    respond(request, response).catch(() => {
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const handler of handlers) if (await handler(request, response)) return;
    const [path] = (request.url ?? "/").split("?", 1);
    if (request.method !== "GET" && request.method !== "HEAD") send(response, 405, "method not allowed\n");
    else if (path === "/livez") send(response, 200, "ok\n");
    else if (path === "/readyz") send(response, ready ? 200 : 503, ready ? "ready\n" : "not ready\n");
    else if (path === "/metrics") send(response, 200, await metrics.text(), metrics.contentType);
    else send(response, 404, "not found\n");
  }
  if (address.kind === "unix") await rm(address.path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new MoevieError(
          "CONFIG_INVALID",
          `MOEVIE_HTTP_LISTEN is "${listen}"; it cannot be bound (${error.code === "EADDRINUSE" ? "in use" : error.message})`,
          { cause: error },
        ),
      ),
    );
    if (address.kind === "unix") server.listen({ path: address.path }, resolve);
    else server.listen({ host: address.host, port: address.port }, resolve);
  });
  const bound =
    address.kind === "unix" ? listen : formatAddress({ ...address, port: (server.address() as AddressInfo).port });
  return {
    address: bound,
    setReady: (value) => (ready = value),
    use: (handler) => void handlers.push(handler),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function send(response: ServerResponse, code: number, body: string, type = "text/plain; charset=utf-8"): void {
  response.writeHead(code, { "content-type": type });
  response.end(body);
}
