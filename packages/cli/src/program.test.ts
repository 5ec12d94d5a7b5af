// The command line as a contract: exit codes, help with an example, one object for --json, never a stack trace. Real processes.
import { spawn } from "node:child_process";
import { createServer, type AddressInfo } from "node:net";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";

const MAIN = fileURLToPath(new URL("main.ts", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "cli-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function cli(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd: folder,
    env: { ...process.env, TMPDIR: folder },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const text = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk: Buffer) => (text.stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (text.stderr += chunk.toString()));
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, ...text })));
}

const COMMANDS = [
  "generate",
  "serve",
  "submit",
  "watch",
  "get",
  "list",
  "cancel",
  "delete",
  "download",
  "inspect",
  "doctor",
  "bench",
  "soak",
  "import",
  "experts show",
  "experts plan",
  "jobs dead",
  "jobs retry",
  "version",
];

describe("moevie", () => {
  it.each(COMMANDS)("%s --help shows an example", async (command) => {
    const { code, stdout } = await cli(...command.split(" "), "--help");
    expect(code).toBe(0);
    expect(stdout).toContain(`Example:\n  moevie ${command}`);
    expect(stdout).toContain("--json");
  });

  it("--help names every command", async () => {
    const { code, stdout } = await cli("--help");
    expect(code).toBe(0);
    for (const command of COMMANDS) expect(stdout).toContain(`  ${command.split(" ")[0]} `);
  });

  it.each([
    [[], "Usage"],
    [["fly"], "unknown command 'fly'; allowed: generate,"],
    [["generate"], "PROMPT"],
    [["generate", "two", "words"], "needs quotes"],
    [["generate", "a", "--speed", "3"], "unknown option '--speed'"],
    [["generate", ""], 'PROMPT is ""; allowed: 1 to'],
    [["generate", "a", "--size", "33x720"], '--size is "33x720"; allowed: WIDTHxHEIGHT'],
    [["generate", "a", "--seconds", "-1"], '--seconds is "-1"; allowed: a number above 0'],
    [["generate", "a", "--seed", "9007199254740993"], "--seed is"],
    [["generate", "a", "--sampler", "magic"], '--sampler is "magic"; allowed: unipc, dpmpp, euler'],
    [["generate", "a", "--shards", "0"], "--shards is"],
    [["generate", "a", "-o", "/"], '-o is "/"; allowed: the path of a file; this is a folder'],
    [["generate", "a", "-o", "/no/such/place.mp4"], "there is no /no/such"],
    [["generate", "a", "--model", "/no/such/bundle"], '--model is "/no/such/bundle"; allowed: the folder of a bundle'],
    [["serve", "--host", "0.0.0.0"], "--insecure"],
    [["serve", "--grpc-port", "70000"], '--grpc-port is "70000"; allowed: a whole number from 0 to 65535'],
    [["get", "a b"], 'VIDEO is "a b"; allowed'],
    [["get", "videos/6f0d1c2e"], 'VIDEO is "videos/6f0d1c2e"; allowed: a name that submit or list printed'],
    [["list", "--page-size", "0"], "--page-size is"],
    [["serve", "--nats", "ws://h:1"], '--nats is "ws://h:1"; allowed: nats://HOST:PORT or tls://HOST:PORT'],
    [["serve", "--nats", "nats://user:secret@h:1"], '--nats is "nats://…@h:1"; allowed'],
    [["serve", "--nats", "nats://h:1", "--data", "d"], '--data is "d"; allowed: nothing beside --nats'],
    [["list", "--server", "nowhere"], '--server is "nowhere"; allowed: HOST:PORT'],
    [["bench", "nothing"], 'NAME is "nothing"; allowed'],
    [["inspect", "/no/such"], "BUNDLE is"],
    [["import", "/no/such"], "FOLDER is"],
    [["experts", "--http", "nowhere"], '--http is "nowhere"; allowed: HOST:PORT, e.g. 127.0.0.1:7901'],
    [["soak", "--store", "tape"], '--store is "tape"; allowed: sqlite, nats'],
    [["experts", "fly"], "unknown command 'fly'; allowed: show, plan"],
    [["experts", "plan", "--speed", "3"], "unknown option '--speed'; see moevie experts plan --help"],
    [["experts", "plan", "--loads", "/no/such"], '--loads is "/no/such"; allowed: a JSON file of loads'],
  ])("%j is wrong use: exit 2, said in words", async (args, words) => {
    const { code, stdout, stderr } = await cli(...args);
    expect(stderr).toContain(words);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("prints wrong use as one object where --json asks for one", async () => {
    const { code, stdout } = await cli("generate", "a", "--fps", "0", "--json");
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ error: { reason: "USAGE", problems: [{ flag: "--fps", value: "0" }] } });
  });

  it("refuses a taken port before it starts anything", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const { code, stderr } = await cli(
      "serve",
      "--grpc-port",
      String(port),
      "--http-port",
      "0",
      "--data",
      join(folder, "data"),
    );
    await new Promise((resolve) => server.close(resolve));
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: `moevie: --grpc-port is ${port}; port ${port} on 127.0.0.1 is taken by another program; allowed: a free port, or 0 for any\n`,
    });
    expect(readdirSync(folder)).toEqual([]);
  });

  it("says that no server answers: exit 1", async () => {
    const server = createServer();
    await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    const { code, stderr } = await cli("list", "--server", `127.0.0.1:${port}`);
    expect(code).toBe(1);
    expect(stderr).toContain(`127.0.0.1:${port}`);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  it("prints version and findings of doctor as one object", async () => {
    const version = await cli("version", "--json");
    expect(JSON.parse(version.stdout)).toMatchObject({ node: process.versions.node });
    const doctor = await cli("doctor", "--json");
    const report = JSON.parse(doctor.stdout) as { findings: { name: string }[] };
    expect(report.findings.map((finding) => finding.name)).toEqual(
      expect.arrayContaining(["node", "cores", "memory", "port 7900", "provider cpu", "provider cuda", "codec h264"]),
    );
  });
});
