// Large checkpoints as objects of a bucket behind the S3 API. One PUT each, streamed from where the arrays lie: an upload that is cut off
// leaves nothing. Reads go range by range; both are checked by the sha256 of the job's record.
import { createHash } from "node:crypto";
import { S3mini, S3NetworkError, S3ServiceError } from "s3mini";
import { MoevieError, limit } from "@moevie/contracts";
import type { CheckpointFacts } from "./checkpoint-file.ts";
import { isPlaced, type CheckpointPlace } from "./checkpoint-place.ts";
import { streamOf } from "./nats-artefacts.ts";

export interface S3Access {
  /** http or https, without the bucket. */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  /** Begins the objects' names; empty, or with a slash at its end. */
  readonly prefix: string;
  readonly accessKey: string;
  readonly secretKey: string;
}

/** The bucket, looked at once. Throws CONFIG_INVALID when it is missing or refuses us; `onNotice` hears of one that does not answer. */
export async function openCheckpointBucket(
  access: S3Access,
  onNotice: (line: string) => void,
): Promise<CheckpointPlace> {
  const bucket = new CheckpointBucket(access);
  try {
    await bucket.all();
  } catch (thrown) {
    if (!(thrown instanceof MoevieError) || thrown.reason !== "PEER_UNAVAILABLE") throw thrown;
    onNotice(`checkpoints cannot be kept for now: ${thrown.message} ${thrown.detail ?? ""}`.trim());
  }
  bucket.isOpen = true;
  return bucket;
}

class CheckpointBucket implements CheckpointPlace {
  readonly #client: S3mini;
  readonly #access: S3Access;
  /** Until then what it refuses is a wrong setting; afterwards, say while a key is replaced, it may pass. */
  isOpen = false;

  constructor(access: S3Access) {
    this.#access = access;
    this.#client = new S3mini({
      accessKeyId: access.accessKey,
      secretAccessKey: access.secretKey,
      endpoint: `${access.endpoint.replace(/\/+$/, "")}/${access.bucket}`,
      region: access.region,
      requestAbortTimeout: limit("s3CallMsMax"),
      // Node sends no stream without it.
      fetch: (url, init) => fetch(url, { ...init, duplex: "half" }),
    });
  }

  async put(id: string, name: string, parts: readonly Uint8Array[]): Promise<string> {
    const hash = createHash("sha256");
    const sizeBytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    const hashed = new TransformStream<Uint8Array, Uint8Array>({
      transform(slice, controller) {
        hash.update(slice);
        controller.enqueue(slice);
      },
    });
    const body = streamOf(parts).pipeThrough(hashed);
    await this.#call(() =>
      this.#client.putObject(this.#key(id, name), body, undefined, undefined, undefined, sizeBytes),
    );
    return hash.digest("hex");
  }

  async read(id: string, { name, sizeBytes, sha256 }: CheckpointFacts): Promise<Uint8Array> {
    const key = this.#key(id, name);
    const bytes = new Uint8Array(sizeBytes);
    const hash = createHash("sha256");
    const rangeBytes = limit("s3RangeBytesMax");
    for (let at = 0; at < sizeBytes; at += rangeBytes) {
      const end = Math.min(at + rangeBytes, sizeBytes);
      const part = await this.#call(async () => {
        const answer = await this.#client.getObjectRaw(key, false, at, end);
        return new Uint8Array(await answer.arrayBuffer());
      });
      if (part.byteLength !== end - at) throw damaged(`${key} ends early`);
      bytes.set(part, at);
      hash.update(part);
    }
    if (hash.digest("hex") !== sha256) throw damaged(`${key} has another hash`);
    return bytes;
  }

  async remove(id: string, names: readonly string[]): Promise<void> {
    for (const name of names) await this.#call(() => this.#client.deleteObject(this.#key(id, name)));
  }

  async all(): Promise<readonly string[]> {
    const { prefix } = this.#access;
    const found = await this.#call(() => this.#client.listObjects("/", prefix));
    if (found === null) throw this.#refused("has no such bucket");
    // Whatever else lies there is not ours to look at.
    return found.map(({ Key }) => Key.slice(prefix.length)).filter((key) => isPlaced(key));
  }

  #key(id: string, name: string): string {
    return `${this.#access.prefix}${id}/${name}`;
  }

  #refused(why: string, cause?: unknown): MoevieError {
    const { bucket, prefix, endpoint } = this.#access;
    const said = `MOEVIE_CHECKPOINTS is "s3://${bucket}/${prefix}": ${new URL(endpoint).host} ${why}`;
    return new MoevieError(
      "CONFIG_INVALID",
      `${said}; allowed: a bucket that MOEVIE_S3_ACCESS_KEY may list, read and write`,
      {
        cause,
      },
    );
  }

  async #call<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      throw this.#error(thrown);
    }
  }

  #error(thrown: unknown): unknown {
    if (thrown instanceof MoevieError) return thrown;
    if (thrown instanceof S3ServiceError) {
      const { status, serviceCode = "" } = thrown;
      const options = { cause: thrown, detail: `${status} ${serviceCode}` };
      if (serviceCode === "NoSuchBucket") return this.#refused("has no such bucket", thrown);
      const isRefusal = status === 401 || status === 403;
      if (isRefusal && this.isOpen)
        return new MoevieError("PEER_UNAVAILABLE", "The S3 server refuses us, which it did not at first.", options);
      if (isRefusal) return this.#refused(`refuses us (${status} ${serviceCode})`, thrown);
      if (status === 404 || status === 416) return damaged(`${status} ${serviceCode}`);
      if (status === 507)
        return new MoevieError(
          "DISK_FULL",
          "There is no room left at the S3 server for the job's checkpoint.",
          options,
        );
      return new MoevieError("PEER_UNAVAILABLE", "The S3 server failed.", options);
    }
    const detail = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
    if (thrown instanceof S3NetworkError || thrown instanceof DOMException || thrown instanceof TypeError)
      return new MoevieError("PEER_UNAVAILABLE", "The S3 server does not answer.", { cause: thrown, detail });
    return thrown;
  }
}

function damaged(detail: string): MoevieError {
  return new MoevieError("STORE_CORRUPT", "The job's checkpoint is missing or damaged.", { detail });
}
