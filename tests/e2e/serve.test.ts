// A server that stays up: every command against it, and every service killed in turn without losing an accepted job.
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CliSession, type RunningCommand } from "./cli-session.ts";
import { probeClip, readFrames } from "./probe-clip.ts";

interface VideoFacts {
  readonly name: string;
  readonly state: string;
  readonly spec: { readonly prompt: string; readonly seed: number };
  readonly artefact: { readonly sizeBytes: number } | null;
  readonly error: { readonly reason: string } | null;
}

const QUICK = ["--size", "256x256", "--seconds", "0.5", "--steps", "2"];
const LONG = ["--size", "256x256", "--seconds", "1.5", "--steps", "100"];

let session: CliSession;
let server: RunningCommand;
let grpc = "";
let http = "";
beforeAll(async () => {
  session = new CliSession();
  await startServer();
});
afterAll(() => session.close());

async function startServer(): Promise<void> {
  server = session.start(
    "serve",
    "--model",
    await session.tinyBundle(),
    "--grpc-port",
    "0",
    "--http-port",
    "0",
    "--data",
    join(session.folder, "jobs"),
    "--json",
  );
  await server.says(/^\{"grpc".*\}$/m);
  ({ grpc, http } = JSON.parse(server.stdout) as { grpc: string; http: string });
}

function count(rows: readonly (readonly number[])[]): number {
  return rows.flat().reduce((sum, each) => sum + each, 0);
}

/** Runs a command against the server and reads the object it prints. */
async function ask<T = VideoFacts>(...args: string[]): Promise<T & { code: number | null }> {
  const { code, stdout, stderr } = await session.run(...args, "--server", grpc, "--json");
  if (stdout === "") throw new Error(stderr);
  return { ...(JSON.parse(stdout) as T), code };
}

describe("serve", () => {
  it("takes a prompt and gives it back as a clip, by every command", async () => {
    const { name } = await ask("submit", "a red boat", "--seed", "5", ...QUICK);
    expect(await ask("watch", name)).toMatchObject({ code: 0, name, state: "completed" });
    expect(await ask("get", name.replace("videos/", ""))).toMatchObject({
      code: 0,
      state: "completed",
      spec: { prompt: "a red boat", seed: 5, size: "256x256" },
    });
    expect((await session.run("get", name, "--server", grpc, "--json")).stdout).not.toContain('"_');
    expect(await ask<{ videos: VideoFacts[] }>("list")).toMatchObject({ code: 0, videos: [{ name }] });
    const { path } = await ask<{ path: string }>("download", name);
    expect(path).toBe(join(session.work, "moevie-a-red-boat-5.mp4"));
    expect(await probeClip(path)).toMatchObject({ width: 256, height: 256, frameCount: 12 });
    expect(await ask("delete", name)).toMatchObject({ code: 0 });
    expect(await ask<{ error: { reason: string; message: string } }>("get", name)).toMatchObject({
      code: 1,
      error: { reason: "VIDEO_NOT_FOUND", message: `There is no ${name}, or it was deleted.` },
    });
  });

  it("shows how its experts are used, where they lie and what a plan would change", async () => {
    const address = new URL(http).host;
    const shown = await session.run("experts", "--http", address);
    expect(shown, shown.stderr).toMatchObject({ code: 0 });
    for (const part of [
      /^1 router, epoch 1$/m,
      /^layer 0: [\d,]+ rows, expert \d+ has \d+ %$/m,
      /^ {2}steps from 750 {2}\S+/m,
    ])
      expect(shown.stdout).toMatch(part);
    expect(shown.stdout).toMatch(/shard 1 {2}ready {2}.*0: /);
    const told = JSON.parse((await session.run("experts", "--http", address, "--json")).stdout) as {
      rows: number[][];
      phases: { fromTimestep: number; rows: number[][] }[];
    };
    expect(told.phases.map(({ fromTimestep }) => fromTimestep)).toEqual([750, 500, 250, 0]);
    expect(told.phases.reduce((sum, phase) => sum + count(phase.rows), 0)).toBe(count(told.rows));
    expect(count(told.rows)).toBeGreaterThan(0);
  });

  it("answers the same video for the same request id, and refuses the id with another prompt", async () => {
    const id = "6f9619ff-8b86-4011-b42d-00c04fc964ff";
    const first = await ask("submit", "a hill", "--request-id", id, ...QUICK);
    expect((await ask("submit", "a hill", "--request-id", id, ...QUICK)).name).toBe(first.name);
    expect(await ask<{ error: { reason: string } }>("submit", "a lake", "--request-id", id, ...QUICK)).toMatchObject({
      code: 1,
      error: { reason: "REQUEST_ID_REUSED" },
    });
  });

  it("cancels a running video, whose file can then not be had", async () => {
    const before = readdirSync(session.work);
    const { name } = await ask("submit", "a hill", ...LONG);
    const watching = session.start("watch", name, "--server", grpc);
    await watching.says("denoise");
    expect(await ask("cancel", name)).toMatchObject({ code: 0 });
    expect((await watching.finished).code).toBe(1);
    expect(await ask("get", name)).toMatchObject({ state: "cancelled", artefact: null });
    expect(await ask<{ error: { reason: string } }>("download", name)).toMatchObject({
      code: 1,
      error: { reason: "VIDEO_NOT_READY" },
    });
    expect(readdirSync(session.work)).toEqual(before);
  });

  it("lists page by page, newest first", async () => {
    const names = [];
    for (const prompt of ["one", "two", "three"]) names.unshift((await ask("submit", prompt, ...QUICK)).name);
    const first = await ask<{ videos: VideoFacts[]; nextPageToken: string }>("list", "--page-size", "2");
    const second = await ask<{ videos: VideoFacts[]; nextPageToken: string }>(
      "list",
      "--page-size",
      "2",
      "--page-token",
      first.nextPageToken,
    );
    expect([...first.videos, ...second.videos].slice(0, 3).map((video) => video.name)).toEqual(names);
    const all = await ask<{ nextPageToken: string }>("list", "--page-size", "100");
    expect(all.nextPageToken).toBe("");
    expect(await ask<{ error: { violations: object[] } }>("list", "--page-token", "made up")).toMatchObject({
      code: 2,
      error: { violations: [{ flag: "--page-token", problem: expect.stringMatching(/^is "made up"; allowed: /) }] },
    });
  });

  it("shows health and the metrics of every service over HTTP", async () => {
    expect((await fetch(`${http}/readyz`)).status).toBe(200);
    expect((await fetch(`${http}/livez`)).status).toBe(200);
    const metrics = await (await fetch(`${http}/metrics`)).text();
    for (const service of [
      "gateway",
      "scheduler",
      "text-encoder",
      "router",
      "expert-shard-0",
      "expert-shard-1",
      "decoder",
    ])
      expect(metrics).toContain(`"${service}"`);
  });

  it("keeps every accepted job when a service is killed, and the clip stays the same", async () => {
    const calm = await ask("submit", "a red boat", "--seed", "5", ...LONG);
    await ask("watch", calm.name);
    const expected = await ask<{ path: string }>("download", calm.name, "-o", "calm.mp4");
    const wanted = await readFrames(expected.path, { width: 256, height: 256 });
    for (const service of ["scheduler", "router", "expert-shard-0", "text-encoder", "decoder", "gateway"]) {
      const { name } = await ask("submit", "a red boat", "--seed", "5", ...LONG);
      const watching = session.start("watch", name, "--server", grpc);
      await watching.says("denoise");
      process.kill(session.pidOf(service), "SIGKILL");
      await server.says(`${service} is back`);
      await watching.finished;
      expect(await ask("watch", name), service).toMatchObject({ code: 0, state: "completed" });
      const { path } = await ask<{ path: string }>("download", name, "-o", `${service}.mp4`);
      expect(await readFrames(path, { width: 256, height: 256 }), service).toEqual(wanted);
    }
  }, 400_000);

  it("finds its jobs again after it was stopped and started", async () => {
    const { name } = await ask("submit", "a hill", ...LONG);
    server.child.kill("SIGKILL");
    await server.finished;
    await session.untilNothingLeft();
    await startServer();
    expect(await ask("watch", name)).toMatchObject({ code: 0, state: "completed" });
  });

  it("says which port is taken before it starts anything", async () => {
    const before = session.processes().length;
    const { code, stderr } = await session.run(
      "serve",
      "--grpc-port",
      grpc.split(":")[1] ?? "",
      "--data",
      join(session.folder, "other"),
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/^moevie: --grpc-port is \d+; port \d+ on 127.0.0.1 is taken/);
    expect(session.processes()).toHaveLength(before);
    expect(existsSync(join(session.folder, "other"))).toBe(false);
  });
});
