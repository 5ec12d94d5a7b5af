// Large checkpoints of the NATS store in a folder: the contract suite with every checkpoint there, what goes there and what is swept, a
// full disk, and places that are refused.
import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { openCheckpointFolder, openNatsStore, type JobStore } from "@moevie/job-store";
import { SPEC, claimed, jobStoreContract, reasonOf } from "@moevie/job-store/contract-suite";
import { LARGE, MIB, openedByService, openedWith, savedTwice } from "../support/checkpoint-place.ts";
import { NatsServer } from "../support/nats-server.ts";

let nats: NatsServer;
beforeAll(async () => {
  nats = await NatsServer.start();
});
afterAll(() => nats.close());

const closers: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

async function opened(settings: Readonly<Record<string, string>>, notices: string[] = []): Promise<JobStore> {
  const store = await openedByService(nats.url, settings, notices);
  closers.push(() => store.close());
  return store;
}

jobStoreContract("NATS with checkpoints in a folder", () =>
  openedWith(nats.url, async (folder) => ({
    large: { place: await openCheckpointFolder(folder), bytesMin: 0 },
    path: (name) => join(folder, name),
  })),
);

test("a folder that is away or fails is no damaged checkpoint: it is asked again; a file that is missing in it is one", async () => {
  const folder = join(mkdtempSync(join(tmpdir(), "moevie-place-")), "mounted");
  closers.push(() => rmSync(dirname(folder), { recursive: true, force: true }));
  const place = await openCheckpointFolder(folder);
  const [id, name] = [randomUUID(), "7-1.large.checkpoint"];
  const facts = { name, sizeBytes: 3, sha256: await place.put(id, name, [Uint8Array.of(1, 2, 3)]) };
  const reason = (): Promise<unknown> => reasonOf(place.read(id, facts));
  renameSync(folder, `${folder}-away`);
  expect(await reason()).toBe("PEER_UNAVAILABLE");
  renameSync(`${folder}-away`, folder);
  expect([...(await place.read(id, facts))]).toEqual([1, 2, 3]);
  renameSync(join(folder, id), join(folder, "kept"));
  writeFileSync(join(folder, id), "no folder");
  expect(await reason()).toBe("PEER_UNAVAILABLE");
  rmSync(join(folder, id));
  expect(await reason()).toBe("STORE_CORRUPT");
});

describe("sizes", () => {
  test("a small checkpoint goes into NATS and a large one into the place; a sweep removes what no record names", async () => {
    const folder = mkdtempSync(join(tmpdir(), "moevie-place-"));
    closers.push(() => rmSync(folder, { recursive: true, force: true }));
    const prefix = `test-${randomUUID().slice(0, 8)}`;
    const own = join(folder, prefix);
    const [stray, others] = [join(own, randomUUID()), join(folder, "another-cluster", randomUUID())];
    for (const each of [stray, others]) {
      mkdirSync(each, { recursive: true });
      writeFileSync(join(each, "7-1.large.checkpoint.part"), "left by a killed writer");
    }
    writeFileSync(join(own, "notes.txt"), "somebody's");
    const notices: string[] = [];
    const store = await opened({ MOEVIE_CHECKPOINTS: `file://${folder}`, MOEVIE_NATS_PREFIX: prefix }, notices);
    const { id } = await savedTwice(store);
    expect(readdirSync(join(own, id))).toHaveLength(1);
    expect(await store.artefacts.names(id)).toHaveLength(2);
    expect(Buffer.from((await store.loadCheckpoint(id)) ?? []).equals(Buffer.concat(LARGE))).toBe(true);
    await vi.waitFor(() => expect(existsSync(stray)).toBe(false), { timeout: 30_000 });
    await store.delete(id);
    expect(readdirSync(own)).toEqual(["notes.txt"]);
    expect(readdirSync(others)).toHaveLength(1);
  });
});

/** The file of a writer that died in the midst of a checkpoint. */
function half(token: number): string {
  return `${token}-99.large.checkpoint.part`;
}

test("what a killed writer left half written goes with a sweep once its lease is over, and not while it lives", async () => {
  const folder = mkdtempSync(join(tmpdir(), "moevie-place-"));
  closers.push(() => rmSync(folder, { recursive: true, force: true }));
  const store = await openNatsStore(
    { servers: [nats.url] },
    {
      prefix: `test-${randomUUID().slice(0, 8)}`,
      large: { place: await openCheckpointFolder(folder), bytesMin: 0 },
      retention: { jobsMax: 100, ageMsMax: 1e9, clipsBytesMax: 1e12 },
      sweepMs: 20,
    },
  );
  closers.push(() => store.close());
  // Two strays one after the other are gone: between them lies a whole sweep.
  const swept = async (): Promise<void> => {
    for (const stray of [randomUUID(), randomUUID()]) {
      mkdirSync(join(folder, stray));
      writeFileSync(join(folder, stray, "1-1.large.checkpoint.part"), "of no job");
      await vi.waitFor(() => expect(existsSync(join(folder, stray))).toBe(false), { timeout: 30_000 });
    }
  };
  await store.submit(SPEC);
  const lease = await claimed(store);
  const write = (token: number): void => writeFileSync(join(folder, lease.id, half(token)), "half");
  const names = (): string[] => readdirSync(join(folder, lease.id)).toSorted();
  await store.saveCheckpoint(lease, [Buffer.from("whole")]);
  const [whole = ""] = names();
  write(lease.token);
  await swept();
  expect(names()).toEqual([whole, half(lease.token)].toSorted());
  await store.release(lease);
  await swept();
  expect(names()).toEqual([whole]);
  const next = await claimed(store);
  write(lease.token);
  write(next.token);
  await swept();
  expect(names()).toEqual([whole, half(next.token)].toSorted());
  expect(Buffer.from((await store.loadCheckpoint(lease.id)) ?? []).toString()).toBe("whole");
  await store.finish(next, { kind: "cancelled" });
  await swept();
  expect(readdirSync(folder)).toEqual([]);
});

describe("a place that cannot be used is refused at the start and named", () => {
  test.each([
    ["no server", { MOEVIE_CHECKPOINTS: "s3://bucket/prefix" }, /MOEVIE_S3_ENDPOINT is not set/],
    ["no kind of place", { MOEVIE_CHECKPOINTS: "/somewhere" }, /allowed: file:\/\/\/FOLDER or s3:/],
    ["a folder under a file", { MOEVIE_CHECKPOINTS: "file:///etc/passwd/x" }, /which cannot be written/],
  ])("%s", async (_what, settings, said) => {
    const refused = opened(settings);
    expect(await reasonOf(refused)).toBe("CONFIG_INVALID");
    await expect(refused).rejects.toThrow(said);
  });
});

test("a folder whose disk is full: DISK_FULL, nothing half written stays, the older checkpoint is read", async () => {
  const folder = mkdtempSync(join(tmpdir(), "moevie-place-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${3 * MIB}`, "none", folder], { encoding: "utf8" });
  if (mounted.status !== 0) throw new Error(`the disk is not mounted as asked: ${mounted.stderr}`);
  closers.push(() => void spawnSync("umount", ["--lazy", folder]));
  const prefix = `test-${randomUUID().slice(0, 8)}`;
  const store = await opened({ MOEVIE_CHECKPOINTS: `file://${folder}`, MOEVIE_NATS_PREFIX: prefix });
  const lease = await savedTwice(store);
  expect(await reasonOf(store.saveCheckpoint(lease, LARGE))).toBe("DISK_FULL");
  expect(readdirSync(join(folder, prefix, lease.id))).toHaveLength(1);
  expect(Buffer.from((await store.loadCheckpoint(lease.id)) ?? []).equals(Buffer.concat(LARGE))).toBe(true);
});
