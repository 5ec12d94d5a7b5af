// The supervisor's promises about its children, kept with real processes.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock, type Clock } from "../clock.ts";
import { CommandError } from "../failure.ts";
import { Cluster, type ClusterEvent, type ClusterOptions } from "./cluster.ts";
import type { ServicePlan } from "./plan-cluster.ts";
import { RESTARTS_MAX } from "./restart-policy.ts";
import { createRunFolder, removeRunFolder } from "./run-folder.ts";

const STAND_IN = fileURLToPath(new URL("stand-in-service.fixture.ts", import.meta.url));
let parent = "";
let runDir = "";
let cluster: Cluster | undefined;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), "cluster-test-"));
  runDir = createRunFolder(parent);
});
afterEach(async () => {
  await cluster?.stop(0);
  removeRunFolder(runDir);
  rmSync(parent, { recursive: true, force: true });
});

function plan(name: string, behaviour = "ready"): ServicePlan {
  return { name, entry: STAND_IN, environment: { STAND_IN: behaviour, MOEVIE_RUN_DIR: runDir }, sockets: [] };
}

function start(plans: ServicePlan[], options: Partial<ClusterOptions> = {}): Cluster {
  cluster = new Cluster(plans, {
    node: process.execPath,
    nodeArguments: [],
    clock: systemClock,
    restart: false,
    readyWaitMsMax: 30_000,
    ...options,
  });
  return cluster;
}

/** Time that passes at once, so that back-off costs nothing; very long waits never end by themselves. */
const hurried: Clock = {
  nowMs: () => 0,
  sleep: (ms, signal) =>
    ms < 10_000
      ? Promise.resolve()
      : new Promise((resolve) => signal?.addEventListener("abort", () => resolve(), { once: true })),
};

describe("a cluster of processes", () => {
  it("is ready when every child said so, and reports each with its addresses", async () => {
    const events: ClusterEvent[] = [];
    const running = start([plan("a"), plan("b")], { onEvent: (event) => events.push(event) });
    await running.waitReady();
    expect(events.map((event) => event.kind === "ready" && `${event.readyCount} of ${event.count}`)).toEqual([
      "1 of 2",
      "2 of 2",
    ]);
    expect(running.addresses("a")).toEqual({ grpc: "127.0.0.1:7", http: "unix:/h" });
  });

  it("names the child that fails and the public text it gave", async () => {
    await expect(start([plan("a"), plan("b", "fails")]).waitReady()).rejects.toThrow(
      "b did not start: the device cuda:7 is not there",
    );
  });

  it("explains a crash by the last log line, never by a stack frame", async () => {
    await expect(start([plan("b", "crashes")]).waitReady()).rejects.toThrow(
      "b did not start: it ended with exit code 3: the socket is too long",
    );
  });

  it("names the children that are not ready when the time is over", async () => {
    const running = start([plan("a"), plan("b", "silent"), plan("c", "silent")], { readyWaitMsMax: 1500 });
    await expect(running.waitReady()).rejects.toThrow(/^not ready after 2 s: (a, )?b, c$/);
  });

  it("says so when the program to run is not there", async () => {
    await expect(start([plan("a")], { node: "/nowhere/node" }).waitReady()).rejects.toThrow(
      "a did not start: it could not be started",
    );
  });

  it("ends the start at once when it is interrupted", async () => {
    const abort = new AbortController();
    const waiting = start([plan("b", "silent")], { signal: abort.signal }).waitReady();
    abort.abort();
    await expect(waiting).rejects.toThrow("interrupted");
  });

  it("gives up with name and cause when a child dies and restarts are off", async () => {
    const running = start([plan("a"), plan("b")]);
    await running.waitReady();
    running.processes()[1]?.kill();
    const fatal = await running.fatal;
    expect(fatal).toBeInstanceOf(CommandError);
    expect(fatal.message).toBe("b died: it was ended by SIGKILL");
  });

  it("starts a dead child again and keeps the address it had", async () => {
    const back = Promise.withResolvers<void>();
    const events: ClusterEvent[] = [];
    const running = start([plan("a")], {
      restart: true,
      onEvent: (event) => {
        events.push(event);
        if (event.kind === "back") back.resolve();
      },
    });
    await running.waitReady();
    const first = running.processes()[0];
    first?.kill();
    await back.promise;
    expect(running.processes()[0]?.pid).not.toBe(first?.pid);
    expect(events.map((event) => event.kind)).toEqual(["ready", "died", "back"]);
    expect(running.addresses("a").grpc).toBe("127.0.0.1:7");
  });

  it("stops restarting after the named maximum and says why", async () => {
    let deaths = 0;
    const running = start([plan("a")], {
      restart: true,
      clock: hurried,
      onEvent: (event) => {
        if (event.kind === "died") deaths += 1;
        if (event.kind === "back") running.processes()[0]?.kill();
      },
    });
    await running.waitReady();
    running.processes()[0]?.kill();
    expect((await running.fatal).message).toBe(
      `a died for the ${RESTARTS_MAX + 1}th time within a minute: it was ended by SIGKILL`,
    );
    expect(deaths).toBe(RESTARTS_MAX);
  });

  it("kills a child that ignores SIGTERM once the grace is over", async () => {
    const running = start([plan("a", "stubborn"), plan("b")]);
    await running.waitReady();
    await running.stop(200);
    expect(running.processes().map((process) => process.state)).toEqual([
      { kind: "ended", cause: "it was ended by SIGKILL" },
      { kind: "ended", cause: "it ended with exit code 0" },
    ]);
    expect(existsSync(runDir)).toBe(true);
  });
});
