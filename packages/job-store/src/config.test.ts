// Which store the settings mean, and how a wrong one is told: by variable, value and what is allowed, never with a secret.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readConfig } from "@moevie/runtime";
import { STORE_SETTINGS, openJobStore } from "./config.ts";
import type { JobStore } from "./job-store.ts";

function open(env: Readonly<Record<string, string>>): Promise<JobStore> {
  return openJobStore(readConfig(env, STORE_SETTINGS), { onNotice: () => undefined });
}

test("without NATS servers the store is the file in the data folder", async () => {
  const folder = await mkdtemp(join(tmpdir(), "moevie-store-"));
  const store = await open({ MOEVIE_DATA: folder });
  expect((await store.counts()).queued).toBe(0);
  await store.close();
  await rm(folder, { recursive: true });
});

test.each([
  [{}, "MOEVIE_DATA is not set; allowed: an absolute path, or MOEVIE_NATS in its place"],
  [{ MOEVIE_NATS: "ws://h:4222" }, 'MOEVIE_NATS has "ws://h:4222"; allowed: nats://HOST:PORT'],
  [{ MOEVIE_NATS: "nats://h:1,nats://u:secret@h:2" }, 'MOEVIE_NATS has "nats://…@h:2"; allowed: nats://HOST:PORT'],
  [{ MOEVIE_NATS: "nats://h:1", MOEVIE_NATS_PREFIX: "a.b" }, 'MOEVIE_NATS_PREFIX is "a.b"; allowed: 1 to 32 letters'],
  [
    { MOEVIE_NATS: "nats://h:1", MOEVIE_NATS_USER: "u", MOEVIE_NATS_TOKEN: "t" },
    "are set together; allowed: one of them",
  ],
  [{ MOEVIE_NATS: "nats://h:1", MOEVIE_NATS_TLS_KEY_FILE: "/k" }, "MOEVIE_NATS_TLS_KEY_FILE is not set; allowed: both"],
  [
    { MOEVIE_NATS: "nats://h:1", MOEVIE_NATS_CREDENTIALS_FILE: "/no/such" },
    'MOEVIE_NATS_CREDENTIALS_FILE is "/no/such"; allowed: a file that can be read (ENOENT)',
  ],
  [
    { MOEVIE_DATA: "/d", MOEVIE_CHECKPOINTS: "file:///c" },
    'MOEVIE_CHECKPOINTS is "file:///c"; allowed: with MOEVIE_NATS only',
  ],
  [{ MOEVIE_DATA: "/d", MOEVIE_TENANT_WEIGHTS: "film" }, 'MOEVIE_TENANT_WEIGHTS has "film"; allowed: tenant=weight'],
  [
    { MOEVIE_DATA: "/d", MOEVIE_TENANT_WEIGHTS: "film=0" },
    'MOEVIE_TENANT_WEIGHTS has "film=0"; allowed: tenant=weight',
  ],
  [{ MOEVIE_DATA: "/d", MOEVIE_TENANT_WEIGHTS: "a=1,_=2" }, 'MOEVIE_TENANT_WEIGHTS has "_=2"; allowed: tenant=weight'],
  [{ MOEVIE_DATA: "/d", MOEVIE_TENANT_WEIGHTS: "a=1e9" }, 'MOEVIE_TENANT_WEIGHTS has "a=1e9"; allowed: tenant=weight'],
])("%j is refused: %s", async (env, words) => {
  const opening = open(env as Record<string, string>);
  await expect(opening).rejects.toMatchObject({ reason: "CONFIG_INVALID" });
  await expect(opening).rejects.toThrow(words);
});
