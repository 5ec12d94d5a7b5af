// Programs that the CLI runs: their end is its end, and its end is theirs.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, it } from "vitest";
import { lastWords } from "./run-child.ts";
import { isAlive, processIdentity } from "./supervisor/process-identity.ts";

const folder = mkdtempSync(join(tmpdir(), "run-child-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("says why a program ended by its error's own line, not by what Node writes behind the stack", () => {
  const stack = "    at persist (file:///chaos-cluster.ts:182:20) {\n  code: 13\n}\n\nNode.js v24.21.0\n";
  expect(lastWords(`file:///a.ts:3\n  throw error;\n\nError: 13 INTERNAL: no status\n${stack}`)).toBe(
    "Error: 13 INTERNAL: no status",
  );
  expect(lastWords(`MoevieError: gone\n${stack}`)).toBe("MoevieError: gone");
  expect(lastWords("first\nthe folder is empty\n")).toBe("the folder is empty");
  expect(lastWords("")).toBe("no reason given");
});

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
