// What a NATS store promises while servers die, refuse, fill up or are set up by other hands: on real servers.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { connect, headers, type NatsConnection } from "@nats-io/transport-node";
import {
  openNatsStore,
  type JobStore,
  type NatsAccess,
  type NatsStoreOptions,
  type Retention,
} from "@moevie/job-store";
import { FACTS, SPEC, claimed, reasonOf, until } from "@moevie/job-store/contract-suite";
import { natsOperator } from "../support/nats-operator.ts";
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
    const events = await insist(() => store.eventsAfter(id, 0));
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

  test("a server that comes later than the services is waited for", async () => {
    const server = await start();
    await server.kill();
    const opening = open({ servers: [server.url] });
    await new Promise((resolve) => setTimeout(resolve, 500));
    await server.again();
    expect((await (await opening).submit(SPEC)).state.kind).toBe("queued");
  });

  test("processes killed in the middle of work lose no accepted job and finish none twice", async () => {
    const server = await start();
    const store = await open({ servers: [server.url] });
    const ids: string[] = [];
    for (let count = 0; count < 30; count += 1) ids.push((await store.submit(SPEC)).id);
    const entry = new URL("../../packages/job-store/src/index.ts", import.meta.url).href;
    const script = `
      const { openNatsStore } = await import(${JSON.stringify(entry)});
      const store = await openNatsStore({ servers: [${JSON.stringify(server.url)}] });
      const signal = AbortSignal.timeout(100000);
      for (;;) {
        const after = store.changeCount;
        const lease = await store.claimNext({ owner: String(process.pid), leaseMs: 2000 });
        if (lease === null) { await store.waitForChange({ after, signal }); continue; }
        console.log("claimed");
        for (let step = 1; step <= 8; step++) await store.writeProgress(lease, { stage: "denoise", step, stepCount: 8, percent: step * 10 }).catch(() => {});
        await store.finish(lease, { kind: "completed", artefact: ${JSON.stringify(FACTS)} }).catch(() => {});
      }`;
    const starts = (): ChildProcess => {
      const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      closers.push(async () => void child.kill("SIGKILL"));
      return child;
    };
    for (let kills = 0; kills < 4; kills += 1) {
      const child = starts();
      await once(child.stdout ?? child, "data");
      await new Promise((resolve) => setTimeout(resolve, 7 * kills));
      child.kill("SIGKILL");
    }
    starts();
    await until(store, async () => (await store.counts()).completed === ids.length);
    await expectOnceEach(store, ids);
  });

  test("every store hears of changes again within seconds when one of three dies, wherever its watch was", async () => {
    const servers = await startNatsCluster();
    for (const server of servers) closers.push(() => server.close());
    const access = { servers: servers.slice(1).map(({ url }) => url) };
    // Enough watches that each server has some.
    const stores = await Promise.all(Array.from({ length: 6 }, () => open(access, { replicas: 3 })));
    await servers[0]?.kill();
    const { id } = await insist(() => (stores[0] as JobStore).submit(SPEC));
    const signal = AbortSignal.timeout(60_000);
    for (const store of stores) {
      for (;;) {
        const after = store.changeCount;
        if ((await store.list({ pageSize: 9 })).jobs.some((job) => job.id === id)) break;
        await store.waitForChange({ after, signal });
      }
    }
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

describe("what is left over", () => {
  const KEEP: Retention = { jobsMax: 100, ageMsMax: 1e12, clipsBytesMax: 1e12 };

  test("files, parts of files, events and markers that no record needs go with a sweep; all that is needed stays", async () => {
    const server = await start();
    const store = await open({ servers: [server.url] });
    const [done, running, removed] = [await store.submit(SPEC), await store.submit(SPEC), await store.submit(SPEC)];
    const ended = await claimed(store);
    const attempt = await store.artefacts.createAttempt(ended);
    await attempt.write(Buffer.from("clip"));
    await attempt.commit();
    await store.finish(ended, { kind: "completed", artefact: FACTS });
    const held = await claimed(store);
    await store.saveCheckpoint(held, [Buffer.from("1234")]);
    const growing = await store.artefacts.createAttempt(held);
    await growing.write(new Uint8Array(2 ** 20));
    await store.delete(removed.id);
    const js = jetstream(await raw(server));
    const jsm = await js.jetstreamManager();
    const files = await new Objm(js).open("moevie-files");
    for (const name of [`${removed.id}/7.mp4`, `${done.id}/999.mp4`, `${running.id}/1.thumbnail.jpg`])
      await files.putBlob({ name }, Buffer.from("left"));
    await js.publish("$O.moevie-files.C.dead", "part");
    await js.publish(`moevie.events.${removed.id}`, "{}");
    const notices: string[] = [];
    const onNotice = (line: string): void => void notices.push(line);
    await open({ servers: [server.url] }, { retention: KEEP, sweepMs: 300, onNotice });
    const signal = AbortSignal.timeout(30_000);
    const markers = async (): Promise<unknown> =>
      (await jsm.streams.info("KV_moevie-records", { subjects_filter: "$KV.moevie-records.job.*" })).state.subjects;
    while (
      !notices.some((line) => line.includes("never finished")) ||
      Object.keys((await markers()) ?? {}).length > 2
    ) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, 50));
      await growing.write(new Uint8Array(2 ** 19 + 1));
    }
    expect(await store.artefacts.names(done.id)).toEqual([`${ended.token}.mp4`]);
    expect(await store.artefacts.names(running.id)).toEqual([`${held.token}-1.checkpoint`]);
    expect(await store.artefacts.names(removed.id)).toEqual([]);
    const events = await jsm.streams.info("moevie-events", { subjects_filter: "moevie.events.*" });
    expect(Object.keys(events.state.subjects ?? {}).sort()).toEqual(
      [done.id, running.id].map((id) => `moevie.events.${id}`).sort(),
    );
    const sizeBytes = await growing.commit();
    expect((await store.artefacts.open(held)).sizeBytes).toBe(sizeBytes);
  });

  test("finished jobs beyond what is kept go with all they had, the first to end first", async () => {
    const server = await start();
    const store = await open({ servers: [server.url] });
    const ids: string[] = [];
    for (let count = 0; count < 4; count += 1) {
      ids.push((await store.submit(SPEC)).id);
      const lease = await claimed(store);
      await (await store.artefacts.createAttempt(lease)).commit();
      await store.finish(lease, { kind: "completed", artefact: FACTS });
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const waiting = await store.submit(SPEC);
    await open({ servers: [server.url] }, { retention: { ...KEEP, jobsMax: 2 } });
    await until(store, async () => (await store.list({ pageSize: 9 })).jobs.length === 3);
    const left = (await store.list({ pageSize: 9 })).jobs.map(({ id }) => id);
    expect(left).toEqual([waiting.id, ids[3], ids[2]]);
    // Files go after the record, without a word.
    const signal = AbortSignal.timeout(30_000);
    while ((await store.artefacts.ids()).length > 2) signal.throwIfAborted();
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

  test("a credentials file opens a server that trusts an operator; without it the door is shut", async () => {
    const { configuration, credentials } = natsOperator();
    const server = await start({ configuration });
    const credentialsFile = join(server.folder, "user.creds");
    writeFileSync(credentialsFile, credentials);
    const store = await open({ servers: [server.url], credentialsFile });
    expect((await store.submit(SPEC)).state.kind).toBe("queued");
    expect(await reasonOf(openNatsStore({ servers: [server.url] }))).toBe("CONFIG_INVALID");
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
