// The lease of controllers in Kubernetes, over real HTTPS: one at a time, fences that rise, no clock but the observer's own, and an API that
// fails in every way it may.
import { afterEach, beforeEach, expect, test } from "vitest";
import { ConfigMapKeeper } from "./kept-placement.ts";
import { KubernetesApi, NAMESPACE } from "./kubernetes-api.fixture.ts";
import { KubernetesLease } from "./kubernetes-lease.ts";
import { KubernetesObjects } from "./kubernetes-objects.ts";
import { Leadership } from "./lease.ts";

const at = { namespace: NAMESPACE, name: "controller" };
let api: KubernetesApi;
let objects: KubernetesObjects;
beforeEach(async () => {
  api = await KubernetesApi.start();
  objects = await KubernetesObjects.connect(api.kubeconfig);
});
afterEach(() => api.close());

const leaseOf = (holder: string): KubernetesLease =>
  new KubernetesLease({ objects, at, holder, leaseMs: 1000, wallMs: () => Date.UTC(2026, 10, 27) });
const spec = (): unknown => api.get("leases", "controller")?.["spec"];

test("a lease that is renewed stays; one that is not is taken over after its length, and its holder learns of it", async () => {
  const [first, second] = [leaseOf("a"), leaseOf("b")];
  expect(await first.take(0, 0)).toBe(1);
  expect(await second.take(70_000, 0)).toBeUndefined();
  await first.renew(1);
  expect(await second.take(70_999, 0)).toBeUndefined();
  expect(await second.take(71_998, 0)).toBeUndefined();
  expect(await second.take(71_999, 0)).toBe(2);
  await expect(first.renew(1)).rejects.toMatchObject({ reason: "LEASE_LOST", message: /fence 2 and holder "b"/ });
  await second.renew(2);
  expect(spec()).toEqual({
    holderIdentity: "b",
    leaseTransitions: 2,
    leaseDurationSeconds: 1,
    acquireTime: "2026-11-27T00:00:00.000000Z",
    renewTime: "2026-11-27T00:00:00.000000Z",
  });
});

test("a lease that is given back is free at once; the fence rises all the same, and above what shards have seen", async () => {
  const [first, second, third] = [leaseOf("a"), leaseOf("b"), leaseOf("c")];
  expect(await first.take(0, 0)).toBe(1);
  await first.release(1);
  expect(await second.take(0, 0)).toBe(2);
  await second.release(2);
  api.delete("leases", "controller");
  expect(await third.take(0, 41)).toBe(42);
});

test("of many who want a free lease one gets it, whether the object is there or not", async () => {
  for (const there of [false, true]) {
    api.delete("leases", "controller");
    if (there) api.put("leases", { metadata: { name: "controller", labels: { from: "chart" } } });
    const taken = await Promise.all(["a", "b", "c", "d", "e", "f"].map((holder) => leaseOf(holder).take(0, 0)));
    expect(taken.filter((fence) => fence !== undefined)).toEqual([1]);
    if (there) expect(api.get("leases", "controller")?.metadata["labels"]).toEqual({ from: "chart" });
  }
  expect(api.answered.filter((answer) => answer.startsWith("POST leases 409")).length).toBeGreaterThan(0);
  expect(api.answered.filter((answer) => answer.startsWith("PUT leases 409")).length).toBeGreaterThan(0);
});

test("a write by somebody else, or one whose answer was lost, is no loss of the lease", async () => {
  const lease = leaseOf("a");
  expect(await lease.take(0, 0)).toBe(1);
  const written = api.get("leases", "controller")!;
  api.put("leases", { ...written, metadata: { ...written.metadata, labels: { by: "kubectl" } } });
  await lease.renew(1);
  expect(api.get("leases", "controller")?.metadata["labels"]).toEqual({ by: "kubectl" });
  api.mode = "loses";
  await expect(lease.renew(1)).rejects.toMatchObject({ reason: "PEER_UNAVAILABLE" });
  api.mode = "answers";
  await lease.renew(1);
});

test("what the API refuses or does not answer is told with what was asked", async () => {
  const lease = leaseOf("a");
  api.forbidden.add("create leases");
  await expect(lease.take(0, 0)).rejects.toMatchObject({
    reason: "PEER_UNAVAILABLE",
    message: 'The Kubernetes API answered 403 to "create lease clips/controller": the account may not.',
  });
  api.mode = "fails";
  await expect(lease.take(0, 0)).rejects.toMatchObject({ message: /answered 500 to "get lease clips\/controller"/ });
  api.mode = "hangs";
  await expect(lease.take(0, 0)).rejects.toMatchObject({ message: /does not answer "get lease clips\/controller"/ });
  const file = { reason: "CONFIG_INVALID", message: /MOEVIE_KUBECONFIG is "\/nowhere"/ };
  await expect(KubernetesObjects.connect("/nowhere")).rejects.toMatchObject(file);
  await expect(KubernetesObjects.connect("")).rejects.toMatchObject({ message: /outside a pod/ });
});

/** What a leader has, with a clock that stands still until it is set. */
function leading(holder: string): { leadership: Leadership; changes: boolean[]; clock: { nowMs: number } } {
  const changes: boolean[] = [];
  const clock = { nowMs: 0 };
  const log = { info: () => undefined, warn: () => undefined };
  const now = (): number => clock.nowMs;
  const onChange = (leads: boolean): void => void changes.push(leads);
  const leadership = new Leadership({ lease: leaseOf(holder), leaseMs: 1000, renewMs: 10, now, log, onChange });
  return { leadership, changes, clock };
}

test("a leader whose API is away leads until its lease has run out, and moves nothing after that", async () => {
  const { leadership, changes, clock } = leading("a");
  expect(await leadership.lead(0)).toBe(true);
  const moving = new AbortController();
  const held = leadership.hold(moving);
  clock.nowMs = 500;
  await expect.poll(() => api.answered.filter((answer) => answer === "PUT leases 200").length).toBeGreaterThan(1);
  api.mode = "fails";
  clock.nowMs = 1499;
  await expect.poll(() => api.answered.filter((answer) => answer === "PUT leases 500").length).toBeGreaterThan(1);
  leadership.check();
  clock.nowMs = 1500;
  await held;
  expect(moving.signal.reason).toMatchObject({ reason: "LEASE_LOST", message: "Not renewed for 1000 ms." });
  expect(() => leadership.check()).toThrow("This controller does not lead.");
  expect(changes).toEqual([true, false]);
  api.mode = "answers";
  expect(await leadership.lead(0)).toBe(true);
  expect(leadership.fence).toBe(2);
});

test("a leader that was stopped wakes up as none, before it asks anybody", async () => {
  const [stopped, next] = [leading("a"), leading("b")];
  expect(await stopped.leadership.lead(0)).toBe(true);
  expect(await next.leadership.lead(0)).toBe(false);
  next.clock.nowMs = 1000;
  expect(await next.leadership.lead(0)).toBe(true);
  stopped.clock.nowMs = 5000;
  expect(() => stopped.leadership.check()).toThrow("Not renewed for 5000 ms.");
  expect(await stopped.leadership.lead(0)).toBe(false);
  expect(next.leadership.fence).toBe(2);
});

const model = { layers: 2, experts: 2 };
const slots = [
  [0, 0],
  [0, 1],
  [1, 0],
  [1, 1],
] as const;
const kept = { epoch: 7, shards: [{ slots }], members: [3] };

test("a placement is kept in a ConfigMap whole, and a leader that is none any more cannot write over a later one", async () => {
  const keeper = new ConfigMapKeeper(objects, { namespace: NAMESPACE, name: "controller-placement" });
  expect(await keeper.read(model)).toBeUndefined();
  await keeper.write(kept, 1);
  await keeper.write({ ...kept, epoch: 8 }, 2);
  expect(await keeper.read(model)).toEqual({ ...kept, epoch: 8 });
  await expect(keeper.write(kept, 1)).rejects.toMatchObject({ reason: "LEASE_LOST" });
  expect(await keeper.read(model)).toEqual({ ...kept, epoch: 8 });
  expect(await keeper.read({ layers: 3, experts: 2 })).toBeUndefined();
  const both = [9, 10].map((epoch) => keeper.write({ ...kept, epoch }, 2));
  await Promise.all(both);
  expect([9, 10]).toContain((await keeper.read(model))?.epoch);
});

/** Every one of `experts` in every one of `layers`. */
function shardOf(layers: number, experts: number): { slots: (readonly [number, number])[] } {
  const slot = (at: number): readonly [number, number] => [at % layers, Math.floor(at / layers)];
  return { slots: Array.from({ length: layers * experts }, (_, at) => slot(at)) };
}

test("sixty-four experts in forty layers with copies on eight shards fit a ConfigMap many times; what does not fit is refused with its bytes", async () => {
  const keeper = new ConfigMapKeeper(objects, { namespace: NAMESPACE, name: "controller-placement" });
  const shards = Array.from({ length: 8 }, () => shardOf(40, 9));
  await keeper.write({ epoch: 1, shards, members: [0, 1, 2, 3, 4, 5, 6, 7] }, 1);
  const data = api.get("configmaps", "controller-placement")?.["data"] as { "placement.json": string };
  expect(data["placement.json"].length).toBeLessThan(40_000);
  const large = { epoch: 1, shards: [shardOf(1024, 512)], members: [0] };
  await expect(keeper.write(large, 1)).rejects.toMatchObject({ reason: "UNSUPPORTED", message: /takes \d+ bytes/ });
});
