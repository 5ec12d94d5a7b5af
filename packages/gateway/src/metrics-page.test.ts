// The merged page of metrics: families once, samples of every process, peers that do not answer.
import { createServer, type Server } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { Metrics } from "@moevie/runtime";
import { afterEach, expect, test } from "vitest";
import { expertLoads, mergedMetrics } from "./metrics-page.ts";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

async function peer(name: string, page: () => Promise<string>): Promise<{ name: string; address: string }> {
  const server = createServer((_request, response) => {
    void page().then((text) => response.end(text));
  }).listen(0, "127.0.0.1");
  servers.push(server);
  await once(server, "listening");
  return { name, address: `127.0.0.1:${(server.address() as AddressInfo).port}` };
}

test("every process keeps its own series, each family has one head, and no series is there twice", async () => {
  const shards = [new Metrics("expert-shard-0"), new Metrics("expert-shard-1")];
  const own = new Metrics("gateway");
  for (const [index, metrics] of [own, ...shards].entries()) {
    metrics.add("moevie_rpc_requests_total", { rpc_service: "moevie.v1.X", method: "Y", code: "OK" }, index + 1);
    metrics.set("moevie_model_loaded", {}, 1);
  }
  const peers = await Promise.all(shards.map((metrics, index) => peer(`expert-shard-${index}`, () => metrics.text())));
  const page = await mergedMetrics(await own.text(), [...peers, { name: "gone", address: "127.0.0.1:1" }]);
  const lines = page.split("\n");
  const samples = lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.slice(0, line.lastIndexOf(" ")));
  expect(new Set(samples).size).toBe(samples.length);
  const heads = lines.filter((line) => line.startsWith("# TYPE"));
  expect(new Set(heads).size).toBe(heads.length);
  for (const [index, service] of ["gateway", "expert-shard-0", "expert-shard-1"].entries()) {
    const labels = `rpc_service="moevie.v1.X",method="Y",code="OK",service="${service}"`;
    expect(lines).toContain(`moevie_rpc_requests_total{${labels}} ${index + 1}`);
  }
  expect(lines).toContain('moevie_peer_up{peer="expert-shard-1"} 1');
  expect(lines).toContain('moevie_peer_up{peer="gone"} 0');
});

test("what routers say of their experts and controllers of what they do is shown by peer, nothing of one that does not answer", async () => {
  const said = { rows: [[1, 2]], epoch: 1 };
  const plan = { leads: true, refusals: [] };
  const peers = [
    await peer("router-0", () => Promise.resolve(JSON.stringify(said))),
    await peer("expert-shard-0", () => Promise.resolve("{}")),
    await peer("controller", () => Promise.resolve(JSON.stringify(plan))),
    { name: "router-1", address: "127.0.0.1:1" },
    { name: "controller-1", address: "127.0.0.1:1" },
  ];
  expect(await expertLoads(peers)).toEqual({
    routers: { "router-0": said, "router-1": null },
    controllers: { controller: plan, "controller-1": null },
  });
});
