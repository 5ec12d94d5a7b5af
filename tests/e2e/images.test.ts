// The images without a container engine: the Dockerfile is checked by its structure, and its install, build and assemble steps run
// as the script they are, in a copy of the tree. What comes out must start.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { SERVICES } from "@moevie/contracts";
import { CACHE } from "../support/cache.ts";
import { CliSession } from "./cli-session.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const STEPS_MS_MAX = 600_000;
const READY_MS_MAX = 60_000;
/** Services that are ready only when others answer. */
const NEEDS_PEERS: ReadonlySet<string> = new Set(["router", "scheduler", "controller"]);
const IMAGES = [...SERVICES, "controller"];
/** What a container gives a process that was told nothing. */
const BARE = { PATH: process.env["PATH"] ?? "", NODE_ENV: "production", ORT_DISABLE_TELEMETRY: "1" };
const dockerfile = readFileSync(join(ROOT, "deploy", "docker", "Dockerfile"), "utf8");

interface Stage {
  readonly name: string;
  readonly from: string;
  readonly lines: readonly string[];
}

/** Stages of the Dockerfile in order. */
function stages(): Stage[] {
  return dockerfile
    .split(/^(?=FROM )/m)
    .slice(1)
    .map((text) => {
      const lines = text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
      const head = /^FROM (\S+) AS (\S+)$/.exec(lines[0] ?? "");
      return { from: head?.[1] ?? "", name: head?.[2] ?? "", lines: lines.slice(1) };
    });
}

describe("the Dockerfile", () => {
  test("has a stage for every service that runs its main.js as an unprivileged user", () => {
    const base = stages().find((stage) => stage.name === "base");
    expect(base?.lines.some((line) => /^USER [1-9]\d*:[1-9]\d*$/.test(line))).toBe(true);
    for (const service of IMAGES) {
      const stage = stages().find((each) => each.name === service);
      expect.soft(stage?.from, service).toBe("base");
      expect
        .soft(stage?.lines, service)
        .toEqual([
          `COPY --from=${service}-files /app /app`,
          `ENTRYPOINT ["node", "--single-threaded-gc", "--no-flush-bytecode", "/app/packages/${service}/dist/main.js"]`,
        ]);
    }
  });

  test("has an image with CUDA for each service that runs graphs, of the runtime's own version", () => {
    const version = /"onnxruntime-node": (\S+)/.exec(readFileSync(join(ROOT, "pnpm-workspace.yaml"), "utf8"))?.[1];
    const provider = readFileSync(join(ROOT, "deploy", "docker", "cuda-provider.txt"), "utf8");
    expect(provider).toMatch(new RegExp(`^onnxruntime-gpu==${version} `, "m"));
    for (const service of ["text-encoder", "router", "expert-shard", "decoder"]) {
      const stage = stages().find(({ name }) => name === `${service}-cuda`);
      expect.soft(stage?.from, service).toBe(service);
      const folder = `/app/node_modules/.pnpm/onnxruntime-node@${version}/node_modules/onnxruntime-node/bin/napi-v6/linux/x64`;
      expect.soft(stage?.lines, service).toContain(`COPY --from=cuda /cuda/provider ${folder}`);
    }
  });

  test("runs as the user that the chart names, and keeps weights and tests out of its context", () => {
    const user = /^USER (\d+:\d+)$/m.exec(dockerfile)?.[1];
    const pod = readFileSync(join(ROOT, "helm", "moevie", "templates", "_pod.tpl"), "utf8");
    const ids = ["runAsUser", "runAsGroup"].map((name) => new RegExp(`${name}: (\\d+)`).exec(pod)?.[1]);
    expect(ids.join(":")).toBe(user);
    expect(keptOut()).toEqual(["packages/starter-model/", "tests/"]);
  });

  test("builds on stages that come before, from pinned base images", () => {
    const seen = new Set(["${NODE_IMAGE}", "${PYTHON_IMAGE}"]);
    for (const stage of stages()) {
      expect.soft(seen, stage.name).toContain(stage.from);
      for (const line of stage.lines)
        for (const source of line.matchAll(/--from=(\S+)/g)) expect.soft(seen, line).toContain(source[1]);
      seen.add(stage.name);
    }
    const node = /NODE_VERSION = "([^"]+)"/.exec(readFileSync(join(ROOT, "tools", "bootstrap.mjs"), "utf8"))?.[1];
    expect(dockerfile).toMatch(new RegExp(`^ARG NODE_IMAGE=node:${node}-`, "m"));
  });

  test("fetches nothing but through the steps of the script", () => {
    const runs = stages().flatMap((stage) => stage.lines.filter((line) => line.startsWith("RUN ")));
    expect(runs.filter((line) => !/^RUN ((\/src\/)?deploy\/docker\/build-steps\.sh |rm -rf )/.test(line))).toEqual([]);
    expect(dockerfile).not.toMatch(/^ADD |curl|wget|apt-get|:latest/m);
  });
});

/** Folders that Dockerfile.dockerignore keeps out of a build context; what git ignores is not there anyway. */
function keptOut(): string[] {
  const lines = readFileSync(join(ROOT, "deploy", "docker", "Dockerfile.dockerignore"), "utf8").split("\n");
  return lines.filter((line) => /^[a-z][a-z/-]*$/.test(line)).map((line) => `${line}/`);
}

/** Copies what git knows, or would, into the cache: the same files that a build context holds. */
function copySource(): string {
  const ignored = keptOut();
  const target = join(CACHE, "test", "image-source");
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  for (const path of listed.split("\0")) {
    if (path === "" || ignored.some((folder) => path.startsWith(folder)) || !existsSync(join(ROOT, path))) continue;
    mkdirSync(dirname(join(target, path)), { recursive: true });
    cpSync(join(ROOT, path), join(target, path));
  }
  return target;
}

/** Places the CUDA provider as the -cuda images do, without CUDA's libraries, and runs the service on a GPU: how it ends and what it says. */
function runOnGpu(
  source: string,
  image: string,
  session: CliSession,
  bundle: string,
): { status: number | null; text: string } {
  const store = join(image, "node_modules", ".pnpm");
  const runtime = readdirSync(store).find((name) => name.startsWith("onnxruntime-node@")) ?? "";
  const folder = join(store, runtime, "node_modules", "onnxruntime-node", "bin", "napi-v6", "linux", "x64");
  const fetched = spawnSync(join(source, "deploy", "docker", "build-steps.sh"), ["cuda-provider", folder], {
    encoding: "utf8",
  });
  expect(fetched.status, fetched.stderr).toBe(0);
  const environment = { ...BARE, MOEVIE_BUNDLE: bundle, MOEVIE_DATA: session.folder, MOEVIE_DEVICE: "cuda:0" };
  const main = join(image, "packages", "expert-shard", "dist", "main.js");
  const { status, stdout, stderr } = spawnSync(process.execPath, [main], { encoding: "utf8", env: environment });
  return { status, text: `${stdout}${stderr}` };
}

/** Runs a service from its image's files until it is ready or ends, then asks it to end. */
async function becomesReady(main: string, session: CliSession): Promise<{ ready: boolean; code: number | null }> {
  const data = join(session.folder, "data-of-image");
  mkdirSync(data, { recursive: true });
  const environment = { ...BARE, MOEVIE_BUNDLE: await session.tinyBundle(), MOEVIE_DATA: data };
  const child = spawn(process.execPath, [main], { env: environment, stdio: ["ignore", "ignore", "pipe"] });
  const late = setTimeout(() => child.kill("SIGKILL"), READY_MS_MAX);
  const code = new Promise<number | null>((resolve) => child.once("close", resolve));
  let log = "";
  for await (const chunk of child.stderr) {
    const wasReady = log.includes('"msg":"ready"');
    log += String(chunk);
    // Once: a second SIGTERM means at once.
    if (!wasReady && log.includes('"msg":"ready"')) child.kill("SIGTERM");
  }
  clearTimeout(late);
  return { ready: log.includes('"msg":"ready"'), code: await code };
}

describe("the steps of the build", () => {
  test(
    "install, build and assemble services that start and say what they need",
    { timeout: STEPS_MS_MAX },
    async () => {
      const session = new CliSession();
      onTestFinished(() => session.close());
      const source = copySource();
      const step = (...args: string[]): void => {
        const run = spawnSync(join(source, "deploy", "docker", "build-steps.sh"), args, {
          cwd: source,
          encoding: "utf8",
          env: { ...process.env, MOEVIE_CACHE: CACHE, CI: "true" },
        });
        expect(run.status, `${args.join(" ")}\n${run.stdout}\n${run.stderr}`).toBe(0);
      };
      step("install");
      step("build");
      for (const service of IMAGES) {
        const image = join(CACHE, "test", "image");
        step("assemble", service, image);
        const main = join(image, "packages", service, "dist", "main.js");
        const start = spawnSync(process.execPath, [main], { encoding: "utf8", env: BARE });
        expect.soft(start.status, service).toBe(1);
        expect.soft(`${start.stdout}${start.stderr}`, service).toMatch(/MOEVIE_[A-Z_]+ is not set; allowed:/);
        if (!NEEDS_PEERS.has(service))
          expect.soft(await becomesReady(main, session), service).toEqual({ ready: true, code: 0 });
        const installed = readdirSync(join(image, "node_modules", ".pnpm"));
        expect
          .soft(
            installed.some((name) => /node-av/.test(name)),
            `${service}: FFmpeg, which is under the GPL, is in the decoder's image alone`,
          )
          .toBe(service === "decoder");
        if (service === "expert-shard") {
          const { status, text } = runOnGpu(source, image, session, await session.tinyBundle());
          expect.soft(status).toBe(1);
          expect
            .soft(text, "the provider fits the runtime, and names what it lacks")
            .toMatch(/lib(cuda|cublas|curand)\S*\.so\.\d+: cannot open/);
          expect.soft(text).toMatch(/DEVICE_MISSING.*MOEVIE_DEVICE is \\?"cuda:0/);
        }
        for (const path of ["LICENSE", "docs/licences.md"])
          expect.soft(existsSync(join(image, path)), `${service}: ${path}`).toBe(true);
        expect.soft(existsSync(join(image, "packages", service, "src")), "no sources in an image").toBe(false);
        expect.soft(existsSync(join(image, "node_modules", "vitest")), "no development tools in an image").toBe(false);
        rmSync(image, { recursive: true, force: true });
      }
      rmSync(source, { recursive: true, force: true });
    },
  );
});
