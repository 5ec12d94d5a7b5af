// The look at a store after a chaos run sees what is planted there, on either store: else its silence would prove nothing.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { openNatsStore, openSqliteStore, type JobSpec, type JobStore } from "@moevie/job-store";
import { FACTS } from "../conformance/served-model.ts";
import { NatsServer } from "../support/nats-server.ts";
import { plantChunk } from "../support/nats-objects.ts";
import { natsBooks, sqliteBooks } from "./store-books.ts";

const LEASE_MS = 600_000;
const NOBODY = "6f0d1c2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f";
const SPEC: JobSpec = {
  prompt: "a",
  negativePrompt: "",
  seed: 1,
  width: 256,
  height: 256,
  seconds: 1,
  fps: 24,
  quality: "standard",
  steps: 4,
  guidance: 5,
  sampler: "unipc",
  colorCorrection: false,
  model: "starter",
};

const closers: (() => Promise<unknown> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

/** One job with its clip, one whose record names a clip that is not there, one that runs with a clip half written, one that waits. */
async function plant(store: JobStore): Promise<Readonly<Record<"sound" | "clipless" | "running" | "waiting", string>>> {
  const claim = async () => {
    const { id } = await store.submit(SPEC);
    const lease = await store.claimNext({ owner: "a", leaseMs: LEASE_MS });
    if (lease?.id !== id) throw new Error("another job was claimed");
    return lease;
  };
  const [sound, clipless, running] = [await claim(), await claim(), await claim()];
  const attempt = await store.artefacts.createAttempt(sound);
  await attempt.write(Buffer.from("mp4"));
  await attempt.commit();
  await store.finish(sound, { kind: "completed", artefact: FACTS });
  await store.finish(clipless, { kind: "completed", artefact: FACTS });
  return { sound: sound.id, clipless: clipless.id, running: running.id, waiting: (await store.submit(SPEC)).id };
}

function expected({ clipless, running, waiting }: Awaited<ReturnType<typeof plant>>): unknown[] {
  return [
    `job ${waiting} is queued`,
    expect.stringContaining(`job ${waiting} is queued with the endings none`),
    `job ${running} is running`,
    expect.stringContaining(`job ${running} is running with the endings none`),
    "1 jobs wait and 1 run",
    expect.stringMatching(`clip ${clipless}/.*mp4 is missing`),
  ];
}

test("jobs that did not end, clips that are not there and files without a record are seen in a data folder", async () => {
  const data = mkdtempSync(join(tmpdir(), "moevie-books-"));
  closers.push(() => rmSync(data, { recursive: true, force: true }));
  const store = await openSqliteStore(join(data, "jobs.db"));
  const planted = await plant(store);
  await store.close();
  mkdirSync(join(data, "artefacts", NOBODY));
  writeFileSync(join(data, "artefacts", NOBODY, "7-1.checkpoint.part"), "half");
  writeFileSync(join(data, "artefacts", planted.sound, "99.mp4"), "another attempt's");
  writeFileSync(join(data, "stray"), "");
  const { wrong, swept } = await sqliteBooks(data);
  expect(swept).toEqual(expect.arrayContaining([`${NOBODY}/7-1.checkpoint.part`, `${planted.sound}/99.mp4`]));
  expect(wrong).toEqual([...expected(planted), "file stray in the data folder"]);
});

test("the same, and chunks of a file that was never finished, are seen on a NATS server", async () => {
  const nats = await NatsServer.start();
  closers.push(() => nats.close());
  const store = await openNatsStore({ servers: [nats.url] });
  closers.push(() => store.close());
  const planted = await plant(store);
  const late = await store.artefacts.createAttempt({ id: planted.sound, token: 99 });
  await late.writeCompanion("thumbnail.jpg", "another attempt's");
  await plantChunk([nats.url], "moevie");
  const { wrong, swept } = await natsBooks(nats.url);
  expect(swept).toEqual([`file ${planted.sound}/99.thumbnail.jpg`, expect.stringMatching(/^1 chunks of .*, no file$/)]);
  expect(wrong).toEqual(expected(planted));
}, 60_000);
