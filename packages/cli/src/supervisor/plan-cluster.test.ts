// What the processes of one machine are told, checked as data.
import { describe, expect, it } from "vitest";
import { ENVIRONMENT } from "@moevie/contracts";
import { planCluster } from "./plan-cluster.ts";

const request = {
  root: "/root",
  runDir: "/run",
  bundleDir: "/bundle",
  dataDir: "/data",
  shardCount: 2,
  grpcListen: "127.0.0.1:7900",
  httpListen: "127.0.0.1:7901",
  logLevel: "info",
  logFormat: "json",
  environment: { PATH: "/bin", MOEVIE_SHARDS: "elsewhere:1", MOEVIE_INTRA_OP_THREADS: "3" },
} as const;

function natsToldOf(nats?: string): string | undefined {
  const plans = planCluster({ ...request, nats, environment: { MOEVIE_NATS: "nats://elsewhere:1" } });
  return plans[0]?.environment["MOEVIE_NATS"];
}

function nameIn(runDir: string): string | undefined {
  const plan = planCluster({ ...request, runDir }).find(({ name }) => name === "scheduler");
  return plan?.environment["MOEVIE_SCHEDULER_NAME"];
}

describe("the plan of a cluster", () => {
  it("has one process a service and one a shard", () => {
    expect(planCluster(request).map((plan) => plan.name)).toEqual([
      "gateway",
      "text-encoder",
      "scheduler",
      "router",
      "expert-shard-0",
      "expert-shard-1",
      "decoder",
    ]);
  });

  it("lets each find its peers by the sockets they listen on", () => {
    const plans = new Map(planCluster(request).map((plan) => [plan.name, plan.environment]));
    const listens = ["expert-shard-0", "expert-shard-1"].map((name) => plans.get(name)?.["MOEVIE_GRPC_LISTEN"]);
    expect(plans.get("router")?.["MOEVIE_SHARDS"]).toBe(listens.join(","));
    expect(plans.get("scheduler")?.["MOEVIE_DECODER"]).toBe(plans.get("decoder")?.["MOEVIE_GRPC_LISTEN"]);
    expect(plans.get("gateway")?.["MOEVIE_METRICS_PEERS"]).toContain(
      "expert-shard-1=unix:/run/expert-shard-1.http.sock",
    );
  });

  it("shares out the cores by one thread a session unless the operator says otherwise, and lets nobody redirect a peer", () => {
    const router = planCluster(request).find((plan) => plan.name === "router")?.environment;
    expect(router?.["MOEVIE_INTRA_OP_THREADS"]).toBe("3");
    expect(router?.["MOEVIE_SHARDS"]).toBe("unix:/run/expert-shard-0.sock,unix:/run/expert-shard-1.sock");
    expect(planCluster({ ...request, environment: {} })[0]?.environment["MOEVIE_INTRA_OP_THREADS"]).toBe("1");
  });

  it("keeps jobs in the folder unless told of NATS servers, whatever the operator's environment holds", () => {
    expect([natsToldOf(), natsToldOf("nats://h:1")]).toEqual(["", "nats://h:1"]);
  });

  it("names its scheduler by the run: the same when started again, another in a cluster beside it", () => {
    expect(nameIn("/run")).toBe(nameIn("/run"));
    expect(nameIn("/run")).not.toBe(nameIn("/other"));
  });

  it("has a controller where there are slots for it to fill", () => {
    const controller = planCluster({ ...request, slots: 18 }).find(({ name }) => name === "controller")?.environment;
    expect(controller).toMatchObject({
      MOEVIE_SLOTS: "18",
      MOEVIE_SHARDS: "unix:/run/expert-shard-0.sock,unix:/run/expert-shard-1.sock",
      MOEVIE_ROUTERS_HTTP: "unix:/run/router.http.sock",
    });
  });

  it("uses only names from the environment table", () => {
    const names = planCluster({ ...request, slots: 16 }).flatMap((plan) => Object.keys(plan.environment));
    const unknown = names.filter((name) => name.startsWith("MOEVIE_") && !Object.hasOwn(ENVIRONMENT, name));
    expect(unknown).toEqual([]);
  });
});
