// Large checkpoints of the NATS store behind the S3 API, on a real server: the contract suite with every checkpoint there, a server that
// goes away and comes back, and a bucket or a key that is refused.
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openCheckpointBucket, type JobStore } from "@moevie/job-store";
import { jobStoreContract, reasonOf } from "@moevie/job-store/contract-suite";
import { LARGE, openedByService, openedWith, savedTwice } from "../support/checkpoint-place.ts";
import { NatsServer } from "../support/nats-server.ts";
import { S3Server } from "../support/s3-server.ts";

let nats: NatsServer;
let s3: S3Server;
beforeAll(async () => {
  [nats, s3] = await Promise.all([NatsServer.start(), S3Server.start()]);
}, S3Server.START_MS_MAX);
afterAll(async () => {
  await nats.close();
  await s3.close();
});

const closers: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

async function opened(settings: Readonly<Record<string, string>>, notices: string[] = []): Promise<JobStore> {
  const store = await openedByService(nats.url, settings, notices);
  closers.push(() => store.close());
  return store;
}

jobStoreContract("NATS with checkpoints behind S3", () =>
  openedWith(nats.url, async () => {
    const prefix = `${randomUUID()}/`;
    const place = await openCheckpointBucket({ ...s3.access, prefix }, () => undefined);
    return { large: { place, bytesMin: 0 }, path: (name) => s3.path(`${prefix}${name}`) };
  }),
);

function s3Settings(given: { readonly bucket?: string; readonly secret?: string } = {}): Record<string, string> {
  return {
    MOEVIE_CHECKPOINTS: `s3://${given.bucket ?? s3.bucket}/${randomUUID()}`,
    MOEVIE_S3_ENDPOINT: s3.endpoint,
    MOEVIE_S3_ACCESS_KEY: s3.accessKey,
    MOEVIE_S3_SECRET_KEY: given.secret ?? s3.secretKey,
  };
}

describe("a bucket that cannot be used is refused at the start and named", () => {
  test.each([
    ["one that is missing", () => s3Settings({ bucket: "nowhere" }), /s3:\/\/nowhere.* has no such bucket/],
    ["a secret that is wrong", () => s3Settings({ secret: "wrong" }), /refuses us \(403/],
  ])("%s", async (_what, settings, said) => {
    const refused = opened(settings());
    expect(await reasonOf(refused)).toBe("CONFIG_INVALID");
    await expect(refused).rejects.toThrow(said);
  });
});

describe("a server that goes away", () => {
  test("an S3 server: saving says so and the record keeps what it had; when it is back, all is there and goes on", async () => {
    const store = await opened(s3Settings());
    const lease = await savedTwice(store);
    await s3.kill();
    expect(await reasonOf(store.saveCheckpoint(lease, LARGE))).toBe("PEER_UNAVAILABLE");
    expect(await store.renew(lease)).toEqual({ cancelRequested: false });
    expect(await reasonOf(store.loadCheckpoint(lease.id))).toBe("PEER_UNAVAILABLE");
    await s3.again();
    expect(Buffer.from((await store.loadCheckpoint(lease.id)) ?? []).equals(Buffer.concat(LARGE))).toBe(true);
    await store.saveCheckpoint(lease, LARGE);
    expect(await store.artefacts.names(lease.id)).toHaveLength(2);
  });

  test("an S3 server that is away when a service starts costs a notice, not the start", async () => {
    await s3.kill();
    const notices: string[] = [];
    const store = await opened(s3Settings(), notices);
    expect(notices).toEqual([
      expect.stringContaining("checkpoints cannot be kept for now: The S3 server does not answer."),
    ]);
    await s3.again();
    await savedTwice(store);
  });
});
