// Lays hands on a file in the NATS object store as a broken disk would: for tests of what a store says of damage.
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { connect } from "@nats-io/transport-node";

export async function damageObject(
  servers: readonly string[],
  prefix: string,
  name: string,
  how: "changed" | "cut" | "missing",
): Promise<void> {
  const connection = await connect({ servers: [...servers] });
  try {
    const bucket = `${prefix}-files`;
    const files = await new Objm(jetstream(connection)).open(bucket);
    const info = await files.info(name);
    if (info === null) throw new Error(`no object ${name}`);
    if (how === "missing") await files.delete(name);
    else {
      const subject = `$O.${bucket}.C.${info.nuid}`;
      const bytes = (await files.getBlob(name)) ?? new Uint8Array();
      await (await jetstreamManager(connection)).streams.purge(`OBJ_${bucket}`, { filter: subject });
      const broken = how === "cut" ? bytes.subarray(0, -1) : bytes.map((byte) => byte ^ 1);
      await jetstream(connection).publish(subject, broken);
    }
  } finally {
    await connection.close();
  }
}
