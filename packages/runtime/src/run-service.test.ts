// The life of a service process: alive before it is ready, drained in order, and a clear end when it cannot go on.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GrpcPeer } from "./grpc-client.ts";

const MAIN = fileURLToPath(new URL("./gated-service.fixture.ts", import.meta.url));

/** The fixture's process, with what it says gathered. */
class Child {
  readonly process: ChildProcess;
  readonly closed: Promise<unknown[]>;
  said = "";
  log = "";

  constructor(folder: string, env: Readonly<Record<string, string>> = {}) {
    this.process = spawn(process.execPath, [MAIN], {
      env: { MOEVIE_GRPC_LISTEN: `unix:${folder}/g`, MOEVIE_HTTP_LISTEN: `unix:${folder}/h`, ...env },
    });
    this.closed = once(this.process, "close");
    this.process.stdout?.on("data", (chunk) => (this.said += String(chunk)));
    this.process.stderr?.on("data", (chunk) => (this.log += String(chunk)));
  }

  /** Resolves when stdout or the log holds `text`; rejects when the process ends first. */
  async says(text: string): Promise<void> {
    while (!`${this.said}${this.log}`.includes(text)) {
      const over = this.closed.then(() => Promise.reject(new Error(`ended without "${text}": ${this.log}`)));
      await Promise.race([once(this.process.stdout!, "data"), once(this.process.stderr!, "data"), over]);
    }
  }

  goOn(line = ""): void {
    this.process.stdin?.write(`${line}\n`);
  }
}

let folder: string;
let child: Child;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "moevie-life-"));
});
afterEach(async () => {
  child.process.kill("SIGKILL");
  await child.closed;
  rmSync(folder, { recursive: true, force: true });
});

async function status(path: string): Promise<number | undefined> {
  const asked = request({ socketPath: join(folder, "h"), path }).end();
  const [answer] = (await once(asked, "response")) as [{ statusCode?: number; resume(): void }];
  answer.resume();
  return answer.statusCode;
}

describe("a service", () => {
  it("is alive while it starts, ready only after, and drains: not ready, calls end, then its own work, then exit 0", async () => {
    child = new Child(folder);
    await child.says("starting");
    expect([await status("/livez"), await status("/readyz")]).toEqual([200, 503]);
    child.goOn();
    await child.says('"msg":"ready"');
    expect(await status("/readyz")).toBe(200);
    const peer = new GrpcPeer("moevie.v1.TextEncoderService", `unix:${folder}/g`);
    const call = peer.unary("Encode", { texts: ["a"] }, { timeoutMs: 20_000 });
    await child.says("called");
    child.process.kill("SIGTERM");
    await child.says('"msg":"draining"');
    await child.says("told to drain");
    expect([await status("/livez"), await status("/readyz")]).toEqual([200, 503]);
    expect(child.said).not.toContain("closed");
    child.goOn();
    expect(await call).toEqual({ contexts: [] });
    peer.close();
    expect(await child.closed).toEqual([0, null]);
    expect(child.said).toContain("closed");
  });

  it("ends at once when told to while it starts, and at the second signal while it drains", async () => {
    child = new Child(folder);
    await child.says("starting");
    child.process.kill("SIGTERM");
    expect(await child.closed).toEqual([0, null]);
    child = new Child(folder);
    await child.says("starting");
    child.goOn();
    await child.says('"msg":"ready"');
    const peer = new GrpcPeer("moevie.v1.TextEncoderService", `unix:${folder}/g`);
    const call = peer.unary("Encode", { texts: ["a"] }, { timeoutMs: 20_000 }).catch((thrown: unknown) => thrown);
    await child.says("called");
    child.process.kill("SIGTERM");
    await child.says('"msg":"draining"');
    child.process.kill("SIGTERM");
    expect(await child.closed).toEqual([1, null]);
    await call;
    peer.close();
  });

  it("says in one line which setting is wrong, and starts nothing", async () => {
    child = new Child(folder, { MOEVIE_LOG_LEVEL: "loud" });
    expect(await child.closed).toEqual([1, null]);
    expect(child.log).toBe(
      'text-encoder: MOEVIE_LOG_LEVEL is "loud"; allowed: trace, debug, info, warn, error, fatal\n',
    );
    expect(child.said).toBe("");
  });

  it("ends with a fixed text when something goes wrong that nobody waits for; the record is in the log", async () => {
    child = new Child(folder);
    await child.says("starting");
    child.goOn("reject");
    expect(await child.closed).toEqual([1, null]);
    const last = JSON.parse(child.log.trim().split("\n").at(-1) ?? "") as { msg: string; reason: string; err: object };
    expect(last).toMatchObject({ msg: "Something unexpected went wrong.", reason: "INTERNAL" });
    expect(JSON.stringify(last.err)).toContain("nobody waits for this");
  });
});
