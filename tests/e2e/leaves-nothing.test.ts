// However `generate` and `serve` end, no process, socket or temporary file outlives them.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CliSession, until, type RunningCommand } from "./cli-session.ts";

let session: CliSession;
let bundle: string;
beforeEach(async () => {
  session = new CliSession();
  bundle = await session.tinyBundle();
});
afterEach(() => session.close());

/** A clip that takes long enough to be interrupted. */
function longClip(): RunningCommand {
  return session.start(
    "generate",
    "a red boat",
    "--model",
    bundle,
    "--steps",
    "100",
    "--seconds",
    "8",
    "-o",
    "clip.mp4",
  );
}

describe("generate leaves nothing behind", () => {
  it("when it is done but the clip", async () => {
    const { code, stdout, stderr } = await session.run(
      "generate",
      "a red boat",
      "--model",
      bundle,
      "--size",
      "256x256",
      "--seconds",
      "0.5",
      "--steps",
      "2",
      "-o",
      "clip.mp4",
    );
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stdout).toContain(join(session.work, "clip.mp4"));
    expect(readdirSync(session.work)).toEqual(["clip.mp4"]);
    expect(session.leftovers()).toEqual([]);
  });

  it.each(["SIGINT", "SIGHUP", "SIGTERM"] as const)("on %s in the middle of a clip", async (signal) => {
    const command = longClip();
    await command.says("denoise");
    command.child.kill(signal);
    const { code, stderr } = await command.finished;
    expect({ code, last: stderr.trim().split("\n").at(-1) }).toEqual({ code: 130, last: "moevie: interrupted" });
    expect(session.leftovers()).toEqual([]);
    expect(readdirSync(session.work)).toEqual([]);
  });

  it("on Ctrl-C while services start, pressed twice", async () => {
    const command = longClip();
    await command.says("starting");
    command.child.kill("SIGINT");
    command.child.kill("SIGINT");
    expect((await command.finished).code).toBe(130);
    expect(session.leftovers()).toEqual([]);
  });

  it("when nobody reads its output any more", async () => {
    const command = session.start(
      "generate",
      "a red boat",
      "--model",
      bundle,
      "--size",
      "256x256",
      "--seconds",
      "0.5",
      "--steps",
      "2",
      "-o",
      "clip.mp4",
    );
    command.child.stdout?.destroy();
    command.child.stderr?.destroy();
    expect((await command.finished).code).toBe(0);
    expect(readdirSync(session.work)).toEqual(["clip.mp4"]);
    expect(session.leftovers()).toEqual([]);
  });

  it("when the supervisor itself is killed with -9", async () => {
    const command = longClip();
    await command.says("denoise");
    expect(session.processes().length).toBeGreaterThan(5);
    command.child.kill("SIGKILL");
    await command.finished;
    await session.untilNothingLeft();
    expect(readdirSync(session.work)).toEqual([]);
  });

  it("when the supervisor is killed with -9 while its services load their code", async () => {
    const command = longClip();
    await until(
      () => session.processes().some(([, name]) => name !== ""),
      30_000,
      () => "no service was started",
    );
    command.child.kill("SIGKILL");
    await command.finished;
    await session.untilNothingLeft();
  });

  it.each(["router", "expert-shard-1", "gateway"])("when %s is killed, and says which it was", async (service) => {
    const command = longClip();
    await command.says("denoise");
    process.kill(session.pidOf(service), "SIGKILL");
    const { code, stderr } = await command.finished;
    expect(code).toBe(1);
    expect(stderr).toContain(`moevie: ${service} died: it was ended by SIGKILL`);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(session.leftovers()).toEqual([]);
  });

  it("and clears away what a killed machine left", async () => {
    const command = longClip();
    await command.says("denoise");
    for (const [pid] of session.processes()) process.kill(pid, "SIGKILL");
    await command.finished;
    expect(session.leftovers()).not.toEqual([]);
    const { code } = await session.run(
      "generate",
      "a red boat",
      "--model",
      bundle,
      "--size",
      "256x256",
      "--seconds",
      "0.5",
      "--steps",
      "2",
      "-o",
      "clip.mp4",
    );
    expect(code).toBe(0);
    expect(session.leftovers()).toEqual([]);
  });
});

describe("bench and import leave no process behind", () => {
  it.each([
    ["bench", ["bench", "startup"]],
    ["import", ["import", "packages/starter-model/weights", "--out", "bundle"]],
  ])("when %s is killed with -9", async (_name, [command = "", ...args]) => {
    const root = fileURLToPath(new URL("../..", import.meta.url));
    const paths = args.map((arg) => (arg.startsWith("packages/") ? join(root, arg) : arg));
    const running = session.start(command, ...paths);
    await until(
      () => session.processes().length > 1,
      30_000,
      () => "no child was started",
    );
    running.child.kill("SIGKILL");
    await running.finished;
    await until(
      () => session.processes().length === 0,
      10_000,
      () => session.leftovers().join(", "),
    );
  });
});

describe("serve leaves nothing behind but its data", () => {
  it.each(["SIGINT", "SIGTERM", "SIGKILL"] as const)("on %s", async (signal) => {
    const command = session.start(
      "serve",
      "--model",
      bundle,
      "--grpc-port",
      "0",
      "--http-port",
      "0",
      "--data",
      join(session.folder, "jobs"),
      "--json",
    );
    await command.says('"startSeconds"');
    command.child.kill(signal);
    const { code, stdout } = await command.finished;
    expect(JSON.parse(stdout)).toHaveProperty("grpc");
    expect(code).toBe(signal === "SIGKILL" ? null : 130);
    await session.untilNothingLeft(signal === "SIGKILL" ? undefined : 0);
  });
});
