// Run folders: private, and cleaned only when their supervisor is surely dead.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isAlive, processIdentity } from "./process-identity.ts";
import { createRunFolder, removeStaleRunFolders } from "./run-folder.ts";

let parent = "";
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), "run-folder-test-"));
});
afterEach(() => rmSync(parent, { recursive: true, force: true }));

function folderOf(name: string, owner: string | undefined): string {
  const path = join(parent, name);
  mkdirSync(path);
  if (owner !== undefined) writeFileSync(join(path, "supervisor.pid"), owner);
  return path;
}

describe("run folders", () => {
  it("are open to their owner alone", () => {
    expect(statSync(createRunFolder(parent)).mode & 0o777).toBe(0o700);
  });

  it("of dead supervisors are removed, all others stay", () => {
    const deadPid = spawnSync(process.execPath, ["-e", ""]).pid;
    const dead = folderOf("moevie-dead", `${deadPid} 12345`);
    const reused = folderOf("moevie-reused", `${process.pid} 1`);
    const alive = createRunFolder(parent);
    const nobodys = folderOf("moevie-other", undefined);
    const foreign = folderOf("other-tool", `${deadPid} 12345`);
    expect(removeStaleRunFolders(parent).sort()).toEqual([dead, reused].sort());
    expect([alive, nobodys, foreign].every((path) => existsSync(path))).toBe(true);
  });

  it("are looked for without complaint where there is no such parent", () => {
    expect(removeStaleRunFolders(join(parent, "missing"))).toEqual([]);
  });
});

describe("a process's identity", () => {
  it("holds for this process and not for another with its id", () => {
    expect(isAlive(processIdentity(process.pid))).toBe(true);
    expect(isAlive(`${process.pid} 1`)).toBe(false);
    expect(isAlive("not a pid")).toBe(true);
  });

  it("is refused in words where the temporary folder is not there", () => {
    expect(() => createRunFolder("/no/such")).toThrow(
      "the temporary folder is /no/such; allowed: a folder that can be written (ENOENT)",
    );
  });
});
