// The HTTP edge over a real socket: health, metrics, and requests that are nothing.
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { serveHttp, type HttpEdge } from "./http-edge.ts";
import { Metrics } from "./metrics.ts";

let edge: HttpEdge | undefined;
afterEach(async () => {
  await edge?.close();
  edge = undefined;
});

async function serve(): Promise<HttpEdge> {
  edge = await serveHttp("127.0.0.1:0", new Metrics("test"));
  return edge;
}

/** Status line of the answer to a request line sent as it is. */
async function raw(address: string, requestLine: string): Promise<string> {
  const [host = "", port = ""] = address.split(":");
  const socket = connect(Number(port), host);
  socket.write(`${requestLine}\r\nHost: x\r\nConnection: close\r\n\r\n`);
  let answer = "";
  for await (const chunk of socket) answer += String(chunk);
  return answer.split("\r\n")[0] ?? "";
}

describe("the HTTP edge", () => {
  it("lives at once, and is ready when told and no longer when told otherwise", async () => {
    const http = await serve();
    const status = async (path: string): Promise<number> => (await fetch(`http://${http.address}${path}`)).status;
    expect([await status("/livez"), await status("/readyz")]).toEqual([200, 503]);
    http.setReady(true);
    expect(await status("/readyz?verbose")).toBe(200);
    http.setReady(false);
    expect([await status("/livez"), await status("/readyz")]).toEqual([200, 503]);
  });

  it("shows metrics in the text format", async () => {
    const { address } = await serve();
    const answer = await fetch(`http://${address}/metrics`);
    expect(answer.headers.get("content-type")).toContain("text/plain");
    expect(await answer.text()).toMatch(/^moevie_process_cpu_seconds_total\{service="test"\} /m);
  });

  it("answers paths and methods it has not, and targets that are no path", async () => {
    const { address } = await serve();
    expect(await raw(address, "GET /nothing HTTP/1.1")).toBe("HTTP/1.1 404 Not Found");
    expect(await raw(address, "POST /livez HTTP/1.1")).toBe("HTTP/1.1 405 Method Not Allowed");
    expect(await raw(address, "GET // HTTP/1.1")).toBe("HTTP/1.1 404 Not Found");
    expect(await raw(address, "GET http://[ HTTP/1.1")).toBe("HTTP/1.1 404 Not Found");
    expect(await raw(address, "HEAD /livez HTTP/1.1")).toBe("HTTP/1.1 200 OK");
  });

  it("asks a service's own paths first, and hides what goes wrong in them", async () => {
    const http = await serve();
    const { address } = http;
    http.use((request, response) => {
      if (request.url === "/broken") throw new Error("secret");
      if (request.url !== "/own") return false;
      response.end("mine");
      return true;
    });
    expect(await (await fetch(`http://${address}/own`)).text()).toBe("mine");
    const broken = await fetch(`http://${address}/broken`);
    expect([broken.status, await broken.text()]).toEqual([500, ""]);
    expect((await fetch(`http://${address}/livez`)).status).toBe(200);
  });

  it("names the setting when its address is taken", async () => {
    const { address } = await serve();
    await expect(serveHttp(address, new Metrics("x"))).rejects.toMatchObject({
      reason: "CONFIG_INVALID",
      message: `MOEVIE_HTTP_LISTEN is "${address}"; it cannot be bound (in use)`,
    });
  });
});
