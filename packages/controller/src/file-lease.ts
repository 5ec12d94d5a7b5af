// Who leads among the controllers of one machine: a file a leader, its number the fence. A lease is dead when its file has not changed for
// one lease length on the observer's own clock; no wall clocks are compared.
import { readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MoevieError } from "@moevie/contracts";
import type { Lease } from "./lease.ts";

const NAME = /^lease\.(\d+)$/;
const RELEASED = "released";

export class FileLease implements Lease {
  readonly #folder: string;
  readonly #leaseMs: number;
  /** Of the highest lease: what its file said last, and since when. */
  #seen = { fence: 0, text: "", sinceMs: 0 };
  #renewals = 0;

  constructor(folder: string, leaseMs: number) {
    this.#folder = folder;
    this.#leaseMs = leaseMs;
  }

  async take(nowMs: number, above: number): Promise<number | undefined> {
    const fence = await this.#highest();
    if (fence > 0) {
      const text = await this.#read(fence);
      if (fence !== this.#seen.fence || text !== this.#seen.text) this.#seen = { fence, text, sinceMs: nowMs };
      if (text !== RELEASED && nowMs - this.#seen.sinceMs < this.#leaseMs) return undefined;
    }
    const own = Math.max(fence, above) + 1;
    try {
      await writeFile(this.#file(own), "0", { flag: "wx" });
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === "EEXIST") return undefined;
      throw thrown;
    }
    // Somebody may have taken a later one while this one was looked at, and removed those before it.
    if ((await this.#highest()) !== own) {
      await rm(this.#file(own), { force: true });
      return undefined;
    }
    for (const before of await this.#fences()) if (before < own) await rm(this.#file(before), { force: true });
    return own;
  }

  async renew(fence: number): Promise<void> {
    const highest = await this.#highest();
    if (highest !== fence)
      throw new MoevieError("LEASE_LOST", `The lease has fence ${highest}, this controller had ${fence}.`);
    await this.#write(fence, String(++this.#renewals));
  }

  async release(fence: number): Promise<void> {
    if ((await this.#highest()) === fence) await this.#write(fence, RELEASED);
  }

  /** Whole or not at all. */
  async #write(fence: number, text: string): Promise<void> {
    const next = `${this.#file(fence)}.next`;
    await writeFile(next, text);
    await rename(next, this.#file(fence));
  }

  async #read(fence: number): Promise<string> {
    try {
      return await readFile(this.#file(fence), "utf8");
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return "";
      throw thrown;
    }
  }

  async #highest(): Promise<number> {
    return Math.max(0, ...(await this.#fences()));
  }

  async #fences(): Promise<number[]> {
    const names = await readdir(this.#folder);
    return names.flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  }

  #file(fence: number): string {
    return join(this.#folder, `lease.${fence}`);
  }
}
