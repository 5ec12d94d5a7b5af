// A data folder has one cluster: a second `moevie serve` there refuses and says why, the first goes on with its clip, and whoever dies
// leaves the folder to the next.
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { CliSession, type RunningCommand } from "./cli-session.ts";

let session: CliSession;
let data = "";
beforeEach(() => {
  session = new CliSession();
  data = join(session.folder, "jobs");
});
afterEach(() => session.close());

async function serve(): Promise<RunningCommand> {
  const ports = ["--shards", "1", "--grpc-port", "0", "--http-port", "0"];
  return session.start("serve", "--model", await session.tinyBundle(), ...ports, "--data", data, "--json");
}

async function ready(command: RunningCommand): Promise<string> {
  await command.says(/^\{"grpc".*\}$/m);
  return (JSON.parse(command.stdout) as { readonly grpc: string }).grpc;
}

it("is refused to a second cluster with its name, while the first ends its clip; a killed one leaves it to the next", async () => {
  const first = await serve();
  const grpc = await ready(first);
  const shape = ["--size", "256x256", "--seconds", "0.5", "--steps", "60"];
  const submitted = await session.run("submit", "a red boat", "--server", grpc, "--json", ...shape);
  const { name } = JSON.parse(submitted.stdout) as { readonly name: string };

  const refused = await (await serve()).finished;
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain(
    `--data is ${JSON.stringify(data)}; allowed: a folder that no other moevie uses: one that runs keeps its jobs there`,
  );
  const watched = await session.run("watch", name, "--server", grpc, "--json");
  expect(JSON.parse(watched.stdout)).toMatchObject({ name, state: "completed" });
  const got = await session.run("get", name, "--server", grpc, "--json");
  expect(JSON.parse(got.stdout)).toMatchObject({ attempt: 1 });

  first.child.kill("SIGKILL");
  await first.finished;
  const next = await serve();
  const again = await session.run("get", name, "--server", await ready(next), "--json");
  expect(JSON.parse(again.stdout)).toMatchObject({ name, state: "completed" });
});
