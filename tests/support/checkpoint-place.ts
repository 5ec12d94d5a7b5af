// The NATS store with a place for large checkpoints, opened for the contract suite and as a service opens it.
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readConfig } from "@moevie/runtime";
import { STORE_SETTINGS, openJobStore, openNatsStore, type JobStore, type LargeCheckpoints } from "@moevie/job-store";
import { SPEC, claimed, type OpenedStore } from "@moevie/job-store/contract-suite";
import { damageObject } from "./nats-objects.ts";

export const MIB = 2 ** 20;
/** More than the bound of stores that `openedByService` opens. */
export const LARGE = [new Uint8Array(3).fill(5), new Uint8Array(2 * MIB).fill(6)];

export interface Place {
  readonly large: LargeCheckpoints;
  /** Path of a file of the place. */
  readonly path: (name: string) => string;
}

/** On the server at `url`, as the contract suite wants it. */
export async function openedWith(url: string, placeOf: (folder: string) => Promise<Place>): Promise<OpenedStore> {
  const folder = mkdtempSync(join(tmpdir(), "moevie-place-"));
  const { large, path } = await placeOf(folder);
  const prefix = `test-${randomUUID().slice(0, 8)}`;
  const open = (options: Parameters<OpenedStore["reopen"]>[0] = {}): Promise<JobStore> =>
    openNatsStore({ servers: [url] }, { prefix, large, ...options });
  return {
    store: await open(),
    reopen: open,
    folder,
    async damage(id, name, how) {
      const file = path(`${id}/${name}`);
      if (!name.endsWith(".checkpoint")) return await damageObject([url], prefix, `${id}/${name}`, how);
      if (how === "missing") return rmSync(file);
      const bytes = readFileSync(file);
      writeFileSync(file, how === "cut" ? bytes.subarray(0, -1) : bytes.map((byte) => byte ^ 1));
    },
  };
}

/** As a service opens it: from its settings; checkpoints of a MiB are large, and it sweeps. */
export async function openedByService(
  url: string,
  settings: Readonly<Record<string, string>>,
  notices: string[] = [],
): Promise<JobStore> {
  const env = {
    MOEVIE_NATS: url,
    MOEVIE_NATS_PREFIX: `test-${randomUUID().slice(0, 8)}`,
    MOEVIE_CHECKPOINTS_MIB_MIN: "1",
    ...settings,
  };
  return await openJobStore(readConfig(env, STORE_SETTINGS), {
    onNotice: (line) => notices.push(line),
    retention: { jobsMax: 100, ageMsMax: 1e9, clipsBytesMax: 1e12 },
  });
}

/** A lease whose job has a small checkpoint and then a large one. */
export async function savedTwice(store: JobStore): Promise<Awaited<ReturnType<typeof claimed>>> {
  await store.submit(SPEC);
  const lease = await claimed(store);
  await store.saveCheckpoint(lease, [Buffer.from("small")]);
  await store.saveCheckpoint(lease, LARGE);
  return lease;
}
