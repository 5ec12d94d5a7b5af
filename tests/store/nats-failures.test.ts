// What a NATS store promises while servers die, refuse, fill up or are set up by other hands: on real servers.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, headers, type NatsConnection } from "@nats-io/transport-node";
import { openNatsStore, type JobStore, type NatsAccess, type NatsStoreOptions } from "@moevie/job-store";
import { FACTS, SPEC, claimed, reasonOf, until } from "@moevie/job-store/contract-suite";
import { NatsServer, startNatsCluster, type NatsServerOptions } from "../support/nats-server.ts";

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

async function start(options: NatsServerOptions = {}): Promise<NatsServer> {
  const server = await NatsServer.start(options);
  closers.push(() => server.close());
  return server;
}

async function open(access: NatsAccess, options: NatsStoreOptions = {}): Promise<JobStore> {
  const store = await openNatsStore(access, options);
  closers.push(() => store.close());
  return store;
}

/** A connection of the test's own, to do what a store never would. */
async function raw(server: NatsServer): Promise<NatsConnection> {
  const connection = await connect({ servers: server.url });
  closers.push(() => connection.close());
  return connection;
}

/** A call that is repeated while the servers are away, as its owners in the services do. */
async function insist<T>(call: () => Promise<T>): Promise<T> {
  const endMs = performance.now() + 60_000;
  for (;;) {
    try {
      return await call();
    } catch (thrown) {
      if ((thrown as { reason?: string }).reason !== "PEER_UNAVAILABLE" || performance.now() > endMs) throw thrown;
    }
  }
}

/** Claims and finishes jobs until `count` are completed; a lost lease is let go. */
async function work(store: JobStore, owner: string, count: number): Promise<void> {
  const signal = AbortSignal.timeout(120_000);
  while ((await insist(() => store.counts())).completed < count) {
    signal.throwIfAborted();
    const after = store.changeCount;
    const lease = await insist(() => store.claimNext({ owner, leaseMs: 4000 }));
    if (lease === null) {
      await Promise.race([store.waitForChange({ after, signal }), new Promise((resolve) => setTimeout(resolve, 500))]);
      continue;
    }
    try {
      for (let step = 1; step <= 4; step += 1)
        await insist(() => store.writeProgress(lease, { stage: "denoise", step, stepCount: 4, percent: step * 20 }));
      await insist(() => store.finish(lease, { kind: "completed", artefact: FACTS }));
    } catch (thrown) {
      if ((thrown as { reason?: string }).reason !== "LEASE_LOST") throw thrown;
    }
  }
}

async function expectOnceEach(store: JobStore, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    const events = await store.eventsAfter(id, 0);
    expect(events.filter(({ state }) => state === "completed")).toHaveLength(1);
    expect(events.at(-1)?.state).toBe("completed");
    const sequences = events.map(({ sequence }) => sequence);
    expect(sequences).toEqual([...new Set(sequences)].sort((one, other) => one - other));
  }
}

describe("servers that die", () => {
  test("one server killed and started again: what was acknowledged is there, leases go on, stores find it by themselves", async () => {
    const server = await start();
    const [one, other] = [await open({ servers: [server.url] }), await open({ servers: [server.url] })];
    const ids = [];
    for (let count = 0; count < 20; count += 1) ids.push((await one.submit(SPEC)).id);
    const lease = await claimed(one);
    await one.saveCheckpoint(lease, [Buffer.from("1234")]);
    await server.kill();
    expect(await reasonOf(other.get(ids[3] ?? ""))).toBe("PEER_UNAVAILABLE");
    await server.again();
    expect(await insist(() => one.renew(lease))).toEqual({ cancelRequested: false });
    expect(Buffer.from((await insist(() => other.loadCheckpoint(lease.id))) ?? []).toString()).toBe("1234");
    await insist(() => one.release(lease));
    await Promise.all([work(one, "one", ids.length), work(other, "other", ids.length)]);
    await expectOnceEach(other, ids);
    expect((await insist(() => other.submit(SPEC))).state.kind).toBe("queued");
    await until(one, async () => (await one.counts()).queued === 1);
  });

  test("each of three killed in turn while jobs run: every job ends once, no event is missing or double", async () => {
    const servers = await startNatsCluster();
    for (const server of servers) closers.push(() => server.close());
    const access = { servers: servers.map(({ url }) => url) };
    const [one, other] = [await open(access, { replicas: 3 }), await open(access, { replicas: 3 })];
    const ids: string[] = [];
    const submitting = (async () => {
      for (let count = 0; count < 60; count += 1) {
        const requestId = `request-${count}`;
        ids.push((await insist(() => one.submit(SPEC, { requestId, requestDigest: "same" }))).id);
      }
    })();
    const working = Promise.all([work(one, "one", 60), work(other, "other", 60)]);
    for (const server of servers) {
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await server.kill();
      await new Promise((resolve) => setTimeout(resolve, 1500));
      await server.again();
      while (!(await server.isHealthy())) await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await submitting;
    await working;
    expect(new Set(ids).size).toBe(60);
    await expectOnceEach(other, ids);
  });
});

describe("servers that refuse", () => {
  test("users, passwords and tokens are shown to the server; a wrong one is a setting's error", async () => {
    const withUser = await start({ configuration: `authorization { user: moevie, password: "s3cret" }` });
    await open({ servers: [withUser.url], user: "moevie", password: "s3cret" });
    const wrong = openNatsStore({ servers: [withUser.url], user: "moevie", password: "other" });
    expect(await reasonOf(wrong)).toBe("CONFIG_INVALID");
    const withToken = await start({ configuration: `authorization { token: "t0ken" }` });
    await open({ servers: [withToken.url], token: "t0ken" });
  });

  test("links are encrypted both ways with certificates from files; a file that is not there is named", async () => {
    const folder = mkdtempSync(join(tmpdir(), "moevie-tls-"));
    closers.push(async () => rmSync(folder, { recursive: true, force: true }));
    const file = (name: string): string => join(folder, name);
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
    const openssl = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject];
    const made = spawnSync("openssl", [...openssl, "-keyout", file("key.pem"), "-out", file("cert.pem")]);
    expect(made.status).toBe(0);
    const tls = `tls { cert_file: "${file("cert.pem")}", key_file: "${file("key.pem")}", ca_file: "${file("cert.pem")}", verify: true }`;
    const server = await start({ configuration: tls });
    const files = { tlsCaFile: file("cert.pem"), tlsCertificateFile: file("cert.pem"), tlsKeyFile: file("key.pem") };
    const store = await open({ servers: [server.url], ...files });
    expect((await store.submit(SPEC)).state.kind).toBe("queued");
    const missing = openNatsStore({ servers: [server.url], ...files, tlsCaFile: file("no.pem") });
    await expect(missing).rejects.toMatchObject({ reason: "CONFIG_INVALID" });
    await expect(missing).rejects.toThrow("MOEVIE_NATS_TLS_CA_FILE");
  });

  test("no room is DISK_FULL for a file and for a record, and what was accepted before stays", async () => {
    const server = await start({ storeBytesMax: 3 * 2 ** 20 });
    const store = await open({ servers: [server.url] });
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    expect(await reasonOf(store.saveCheckpoint(lease, [new Uint8Array(8 * 2 ** 20)]))).toBe("DISK_FULL");
    expect(await store.renew(lease)).toEqual({ cancelRequested: false });
    const attempt = await store.artefacts.createAttempt(lease);
    const written = (async () => {
      for (let count = 0; count < 100; count += 1) await attempt.write(new Uint8Array(2 ** 18));
    })();
    expect(await reasonOf(written)).toBe("DISK_FULL");
    await attempt.discard();
    expect(await store.artefacts.names(id)).toEqual([]);
    const flood = (async () => {
      for (let count = 0; count < 400; count += 1) await store.submit({ ...SPEC, prompt: "x".repeat(20_000) });
    })();
    expect(await reasonOf(flood)).toBe("DISK_FULL");
    expect((await store.get(id)).state.kind).toBe("running");
  });
});

describe("what is found on a server", () => {
  test("streams that are set up otherwise are used and told of, never changed", async () => {
    const server = await start();
    await (await openNatsStore({ servers: [server.url] })).close();
    const jsm = await jetstreamManager(await raw(server));
    await jsm.streams.update("moevie-events", { max_msgs_per_subject: 7 });
    const notices: string[] = [];
    const store = await open({ servers: [server.url] }, { onNotice: (line) => notices.push(line) });
    expect(notices).toEqual(["stream moevie-events: max_msgs_per_subject is 7, meant is 2000"]);
    expect((await store.submit(SPEC)).state.kind).toBe("queued");
    expect((await jsm.streams.info("moevie-events")).config.max_msgs_per_subject).toBe(7);
  });

  test("records of a newer build that this one can read keep what it does not know; others are left alone and told of", async () => {
    const server = await start();
    const notices: string[] = [];
    const store = await open({ servers: [server.url] }, { onNotice: (line) => notices.push(line) });
    const { id } = await store.submit(SPEC);
    const { id: alien } = await store.submit(SPEC);
    const js = jetstream(await raw(server));
    const rewrite = async (of: string, change: object): Promise<void> => {
      const found = await (
        await js.jetstreamManager()
      ).streams.getMessage("KV_moevie-records", {
        last_by_subj: `$KV.moevie-records.job.${of}`,
      });
      const job = { ...found?.json<object>(), ...change };
      await js.publish(`$KV.moevie-records.job.${of}`, JSON.stringify(job), { headers: headers() });
    };
    await rewrite(id, { version: 2, tenant: "later" });
    await rewrite(alien, { version: 2, readableFrom: 2 });
    await until(store, async () => notices.length > 0);
    expect(notices).toEqual([`record of ${alien}: The job's record has version 2; this build reads up to 1.`]);
    expect(await reasonOf(store.get(alien))).toBe("UNSUPPORTED");
    const lease = await claimed(store);
    expect(lease.id).toBe(id);
    await store.finish(lease, { kind: "cancelled" });
    const kept = await (
      await js.jetstreamManager()
    ).streams.getMessage("KV_moevie-records", {
      last_by_subj: `$KV.moevie-records.job.${id}`,
    });
    expect(kept?.json()).toMatchObject({ tenant: "later", state: { kind: "cancelled" } });
  });
});
