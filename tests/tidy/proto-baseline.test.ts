// The baseline that the breaking-change check compares with holds all that the .proto files say today. Without this, what was added
// after the last baseline could be renamed or renumbered, and nobody would notice.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "./source-files.ts";

/** What `protos` has and the baseline lacks, as buf tells it: the breaking-change check the other way round. */
function missingInBaseline(protos: string): string[] {
  const buf = join(ROOT, "node_modules/.bin/buf");
  const check = spawnSync(buf, ["breaking", "baseline.binpb", "--against", protos], {
    cwd: join(ROOT, "protos"),
    encoding: "utf8",
  });
  if (check.status !== 0 && check.status !== 100) throw new Error(`buf failed: ${check.stderr}`);
  return check.stdout.split("\n").filter((line) => line !== "");
}

test("the baseline has every message, field, value and method of today (else build it again)", () => {
  expect(missingInBaseline(".")).toEqual([]);
});

test("a message, a field, a value and a method that are not in the baseline are found", () => {
  const folder = mkdtempSync(join(tmpdir(), "moevie-protos-"));
  try {
    cpSync(join(ROOT, "protos"), folder, { recursive: true });
    const path = join(folder, "moevie/v1/video.proto");
    const text = readFileSync(path, "utf8")
      .replace("message GetVideoRequest {", "message GetVideoRequest {\n  string added_field = 99;")
      .replace("VIDEO_STATE_QUEUED = 1;", "VIDEO_STATE_QUEUED = 1;\n  VIDEO_STATE_ADDED = 99;")
      .replace("service VideoService {", "service VideoService {\n  rpc AddedMethod(GetVideoRequest) returns (Video);");
    writeFileSync(path, `${text}\nmessage AddedMessage {}\n`);
    const missing = missingInBaseline(folder).join("\n");
    for (const name of ["added_field", `enum value "99" on enum "VideoState"`, "AddedMethod", "AddedMessage"])
      expect(missing).toContain(name);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
