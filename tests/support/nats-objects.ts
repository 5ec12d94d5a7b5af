// Lays hands on a file in the NATS object store as a broken disk would, and looks for what writers that died left there: for tests.
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

/** Chunks of files that have no object, a line for each such file. */
export async function ownerlessChunks(servers: readonly string[], prefix: string): Promise<readonly string[]> {
  const connection = await connect({ servers: [...servers] });
  try {
    const bucket = `${prefix}-files`;
    const jsm = await jetstreamManager(connection);
    const files = await new Objm(jetstream(connection)).open(bucket);
    const subjectsOf = async (kind: "C" | "M"): Promise<readonly (readonly [rest: string, messages: number])[]> => {
      const start = `$O.${bucket}.${kind}.`;
      const { state } = await jsm.streams.info(`OBJ_${bucket}`, { subjects_filter: `${start}>` });
      return Object.entries(state.subjects ?? {}).map(([subject, count]) => [subject.slice(start.length), count]);
    };
    const chunks = await subjectsOf("C");
    const owners = new Set<string | undefined>();
    for (const [name] of await subjectsOf("M"))
      owners.add((await files.info(Buffer.from(name, "base64url").toString("utf8")))?.nuid);
    return chunks.filter(([nuid]) => !owners.has(nuid)).map(([nuid, count]) => `${count} chunks of ${nuid}, no file`);
  } finally {
    await connection.close();
  }
}

/** One chunk of a file that nobody finishes. */
export async function plantChunk(servers: readonly string[], prefix: string): Promise<void> {
  const connection = await connect({ servers: [...servers] });
  try {
    await jetstream(connection).publish(`$O.${prefix}-files.C.NOBODYSNUID0000000000A`, Buffer.from("half"));
  } finally {
    await connection.close();
  }
}
