// Programs that the CLI runs: their end is its end, and its end is theirs.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";
import { isAlive, processIdentity } from "./supervisor/process-identity.ts";

const folder = mkdtempSync(join(tmpdir(), "run-child-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("ends the program when it is killed with -9 itself", async () => {
  const program = join(folder, "program.mjs");
  writeFileSync(program, "console.log(process.pid); setInterval(() => undefined, 1000);");
  const parent = join(folder, "parent.mjs");
  const root = fileURLToPath(new URL("../../..", import.meta.url));
  const runChild = new URL("run-child.ts", import.meta.url).href;
  writeFileSync(
    parent,
    `import { runNode } from ${JSON.stringify(runChild)};
     const never = new AbortController().signal;
     const context = { config: { environment: process.env, root: ${JSON.stringify(root)} }, clock: { sleep: () => new Promise(() => undefined) } };
     await runNode(context, [${JSON.stringify(program)}], { capture: false, interruption: { signal: never, hurry: never } });`,
  );
  const cli = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", parent], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [text] = (await once(cli.stdout, "data")) as [Buffer];
  const child = processIdentity(Number(text.toString()));
  expect(isAlive(child)).toBe(true);
  cli.kill("SIGKILL");
  await expect.poll(() => isAlive(child), { timeout: 10_000 }).toBe(false);
});
