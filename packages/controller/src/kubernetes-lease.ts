// Who leads among the controllers of a Kubernetes cluster: a Lease, its leaseTransitions the fence, written by compare-and-set. A lease is
// dead when its resource version has not changed for one lease length on the observer's own clock; the times in it are for people.
import { MoevieError } from "@moevie/contracts";
import type { KubernetesObjects, LeaseObject, ObjectName } from "./kubernetes-objects.ts";
import type { Lease } from "./lease.ts";

export interface KubernetesLeaseOptions {
  readonly objects: KubernetesObjects;
  readonly at: ObjectName;
  /** This process, and no other one ever. */
  readonly holder: string;
  readonly leaseMs: number;
  /** Milliseconds since 1970, written for people. */
  readonly wallMs: () => number;
}

export class KubernetesLease implements Lease {
  readonly #options: KubernetesLeaseOptions;
  /** What the lease's version was last, and since when. */
  #seen = { version: "", sinceMs: 0 };
  /** As this process wrote it last. */
  #own: LeaseObject = {};

  constructor(options: KubernetesLeaseOptions) {
    this.#options = options;
  }

  async take(nowMs: number, above: number): Promise<number | undefined> {
    const { objects, at, holder, leaseMs } = this.#options;
    const found = await objects.readLease(at);
    const version = found?.metadata?.resourceVersion ?? "";
    if (version !== this.#seen.version) this.#seen = { version, sinceMs: nowMs };
    const by = found?.spec?.holderIdentity ?? "";
    // What names this process is a claim that it gave up itself.
    const free = by === "" || by === holder || nowMs - this.#seen.sinceMs >= leaseMs;
    if (!free) return undefined;
    const fence = Math.max(found?.spec?.leaseTransitions ?? 0, above) + 1;
    const acquireTime = objects.microTime(this.#options.wallMs());
    const written = await this.#write(found ?? named(at), { leaseTransitions: fence, acquireTime });
    return written ? fence : undefined;
  }

  async renew(fence: number): Promise<void> {
    if (await this.#write(this.#own, {})) return;
    // Somebody wrote the object: it may have been a label, or a write of this process whose answer was lost.
    const found = await this.#read(fence);
    if (await this.#write(found, {})) return;
    await this.#read(fence);
  }

  async release(fence: number): Promise<void> {
    const found = await this.#read(fence);
    await this.#write(found, { holderIdentity: "" });
  }

  /** The lease as it is. Throws LEASE_LOST unless this process holds it with `fence`. */
  async #read(fence: number): Promise<LeaseObject> {
    const { objects, at, holder } = this.#options;
    const found = await objects.readLease(at);
    const { holderIdentity = "", leaseTransitions = 0 } = found?.spec ?? {};
    if (found !== undefined && holderIdentity === holder && leaseTransitions === fence) return found;
    const text = `The lease has fence ${leaseTransitions} and holder "${holderIdentity}", this controller had ${fence}.`;
    throw new MoevieError("LEASE_LOST", text);
  }

  /** `before` with `changes`, if it is still so: whether it was. What else is in the object stays. */
  async #write(before: LeaseObject, changes: NonNullable<LeaseObject["spec"]>): Promise<boolean> {
    const { objects, at, holder, leaseMs, wallMs } = this.#options;
    const written = await objects.writeLease(at, {
      ...before,
      spec: {
        ...before.spec,
        holderIdentity: holder,
        leaseDurationSeconds: Math.ceil(leaseMs / 1000),
        renewTime: objects.microTime(wallMs()),
        ...changes,
      },
    });
    if (written !== undefined) this.#own = written;
    return written !== undefined;
  }
}

function named({ namespace, name }: ObjectName): LeaseObject {
  return { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { namespace, name } };
}
