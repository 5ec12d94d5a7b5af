// The contract suite's cases of files: clips and checkpoints, whole or not at all, and gone with the lease or the job that needed them.
import { expect, test } from "vitest";
import { DAMAGES, FACTS, SPEC, claimed, reasonOf, until, type Again, type Start } from "./contract-parts.fixture.ts";
import type { JobStore, Lease } from "./job-store.ts";

export function clipCases(start: Start, again: Again): void {
  test("an attempt that was interrupted is never visible, whether it ends before or after the job's next attempt", async () => {
    const one = await start();
    const other = await again(one);
    const { id } = await one.store.submit(SPEC);
    const first = await claimed(one.store);
    const late = await one.store.artefacts.createAttempt(first);
    await late.write(Buffer.from("first"));
    await other.takeBack("test");
    const second = await claimed(other);
    await late.commit();
    expect(await reasonOf(one.store.finish(first, { kind: "completed", artefact: FACTS }))).toBe("LEASE_LOST");
    expect(await reasonOf(other.artefacts.open({ id, token: second.token }))).toBe("VIDEO_NOT_READY");
    const attempt = await other.artefacts.createAttempt(second);
    await attempt.write(Buffer.from("second"));
    await attempt.commit();
    await other.finish(second, { kind: "completed", artefact: FACTS });
    expect(
      await reasonOf(one.store.finish(first, { kind: "failed", error: { reason: "INTERNAL", message: "x" } })),
    ).toBe("LEASE_LOST");
    const { state } = await one.store.get(id);
    expect(state).toMatchObject({ kind: "completed", token: second.token });
    const clip = await one.store.artefacts.open({ id, token: second.token });
    expect(Buffer.concat(await clip.read().toArray()).toString()).toBe("second");
    expect(await other.artefacts.names(id)).toEqual([`${second.token}.mp4`]);
  });
  test("a finished job names its clip; files of other attempts and the checkpoint are gone", async () => {
    const { store } = await start();
    const { id } = await store.submit(SPEC);
    const first = await claimed(store);
    const late = await store.artefacts.createAttempt(first);
    await late.write(new Uint8Array([0]));
    await store.release(first);
    const second = await claimed(store);
    await store.saveCheckpoint(second, [new Uint8Array(8)]);
    const attempt = await store.artefacts.createAttempt(second);
    await attempt.write(new Uint8Array([1, 2]));
    await attempt.write(new Uint8Array([3]));
    await late.writeCompanion("thumbnail.jpg", new Uint8Array([8]));
    await attempt.writeCompanion("thumbnail.jpg", new Uint8Array([9]));
    expect(await attempt.commit()).toBe(3);
    const done = await store.finish(second, { kind: "completed", artefact: FACTS });
    await late.commit();
    expect(done.state).toMatchObject({ kind: "completed", token: second.token, artefact: FACTS });
    expect(done.progress.percent).toBe(100);
    const clip = await store.artefacts.open({ id, token: second.token });
    expect(Buffer.concat(await clip.read().toArray())).toEqual(Buffer.from([1, 2, 3]));
    expect(Buffer.concat(await clip.read({ start: 1, end: 1 }).toArray())).toEqual(Buffer.from([2]));
    expect(await reasonOf(store.artefacts.open(first))).toBe("VIDEO_NOT_READY");
    const thumbnail = await store.artefacts.open({ id, token: second.token }, "thumbnail.jpg");
    expect(Buffer.concat(await thumbnail.read().toArray())).toEqual(Buffer.from([9]));
    expect(await reasonOf(store.artefacts.open({ id, token: second.token }, "sprites.jpg"))).toBe("VIDEO_NOT_READY");
    expect(await store.loadCheckpoint(id)).toBeNull();
  });
}

export function leftClipCases(start: Start, again: Again): void {
  test("however a job leaves a lease, the clip that lease was writing is gone; the file of a live lease stays", async () => {
    const one = await start();
    const { store } = one;
    const leave: Record<string, (lease: Lease) => Promise<unknown>> = {
      failed: (lease) => store.finish(lease, { kind: "failed", error: { reason: "INTERNAL", message: "It broke." } }),
      cancelled: (lease) => store.finish(lease, { kind: "cancelled" }),
      queued: (lease) => store.release(lease),
      deleted: (lease) => store.delete(lease.id),
    };
    const live = await store.submit(SPEC);
    const liveLease = await claimed(store);
    const writing = await store.artefacts.createAttempt(liveLease);
    for (const end of Object.values(leave)) {
      const { id } = await store.submit(SPEC);
      const lease = await claimed(store);
      const attempt = await store.artefacts.createAttempt(lease);
      await end(lease);
      expect(await store.artefacts.names(id)).toEqual([]);
      await attempt.discard();
      await store.delete(id).catch(() => undefined);
    }
    await writing.commit();
    await again(one);
    expect(await store.artefacts.names(live.id)).toEqual([`${liveLease.token}.mp4`]);
  });
  test("a lease that ran out leaves no clip, whether its job waits again, was cancelled or failed for good", async () => {
    const { store } = await start();
    const { id } = await store.submit(SPEC);
    const gone = (kind: string): Promise<void> =>
      until(
        store,
        async () => (await store.get(id)).state.kind === kind && (await store.artefacts.names(id)).length === 0,
      );
    await (await store.artefacts.createAttempt(await claimed(store, 60))).commit();
    await gone("queued");
    await (await store.artefacts.createAttempt(await claimed(store, 60))).commit();
    await store.requestCancel(id);
    await gone("cancelled");
    expect(await store.artefacts.ids()).toEqual([]);
  });
}

export function checkpointCases(start: Start, again: Again): void {
  test("a checkpoint larger than a message is saved while other calls are answered, stands beside the one before and goes with the job", async () => {
    const one = await start();
    const { store } = one;
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    const parts = [new Uint8Array(5).fill(1), new Uint8Array(96 * 2 ** 20).fill(7)];
    await store.saveCheckpoint(lease, [new Uint8Array(1)]);
    const order: string[] = [];
    await Promise.all([
      store.saveCheckpoint(lease, parts).then(() => order.push("checkpoint")),
      store.renew(lease).then(() => order.push("renewal")),
    ]);
    expect(order).toEqual(["renewal", "checkpoint"]);
    const other = await again(one);
    expect(await store.artefacts.names(id)).toHaveLength(2);
    const read = Buffer.from((await other.loadCheckpoint(id)) ?? []);
    expect(read.equals(Buffer.concat(parts))).toBe(true);
    await store.finish(lease, { kind: "cancelled" });
    expect(await store.artefacts.ids()).toEqual([]);
    expect(await reasonOf(store.saveCheckpoint(lease, parts))).toBe("LEASE_LOST");
    expect(await store.artefacts.names(id)).toEqual([]);
  });
  test("two checkpoints are kept: a newest that is damaged, cut or missing gives way to the one before, and is told when both are", async () => {
    const opened = await start();
    const { store } = opened;
    const { id } = await store.submit(SPEC);
    const lease = await claimed(store);
    const newest = async (): Promise<string> => (await namesByAge(store, id)).at(-1) ?? "";
    for (const how of DAMAGES) {
      await store.saveCheckpoint(lease, [Buffer.from("0000")]);
      await store.saveCheckpoint(lease, [Buffer.from("12"), Buffer.from("34")]);
      expect(await store.artefacts.names(id)).toHaveLength(2);
      expect(Buffer.from((await store.loadCheckpoint(id)) ?? []).toString()).toBe("1234");
      await opened.damage(id, await newest(), how);
      expect(Buffer.from((await store.loadCheckpoint(id)) ?? []).toString()).toBe("0000");
      for (const name of await store.artefacts.names(id)) await opened.damage(id, name, "missing");
      expect(await reasonOf(store.loadCheckpoint(id))).toBe("STORE_CORRUPT");
    }
  });
}

/** The count in a checkpoint's name. */
function ageOf(name: string): number {
  return Number(/-(\d+)\./.exec(name)?.[1]);
}

async function namesByAge(store: JobStore, id: string): Promise<readonly string[]> {
  return [...(await store.artefacts.names(id))].sort((one, other) => ageOf(one) - ageOf(other));
}
