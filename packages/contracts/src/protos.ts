// Loads the .proto files. Holds no behaviour: services and clients get their definitions from here.
import { fileURLToPath } from "node:url";
import { dirname, join } from "node:path";
import {
  loadSync,
  type AnyDefinition,
  type MessageTypeDefinition,
  type Options,
  type PackageDefinition,
} from "@grpc/proto-loader";

/** Folder of the .proto files, the include root. */
export const PROTO_ROOT = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "..", "protos");

/** How messages look in JavaScript; tools/generate-types.mjs writes the types by the same rules. */
const LOAD_OPTIONS: Options = {
  keepCase: false,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
  // Any fields read and write `{ "@type": "type.googleapis.com/…", …fields }`.
  json: true,
  includeDirs: [PROTO_ROOT],
};

const PUBLIC_FILES = [
  "moevie/v1/video.proto",
  "google/longrunning/operations.proto",
  "google/rpc/status.proto",
  "google/rpc/error_details.proto",
];
const INTERNAL_FILES = [
  "moevie/v1/text_encoder.proto",
  "moevie/v1/denoise.proto",
  "moevie/v1/expert.proto",
  "moevie/v1/placement.proto",
  "moevie/v1/decode.proto",
];

let loaded: PackageDefinition | undefined;

/** Every definition of protos/, loaded once a process. */
export function protoDefinitions(): PackageDefinition {
  loaded ??= loadSync([...PUBLIC_FILES, ...INTERNAL_FILES], LOAD_OPTIONS);
  return loaded;
}

/** A message type's codec, e.g. "google.rpc.Status". */
export interface MessageCodec {
  encode(message: object): Buffer;
  decode(bytes: Uint8Array): object;
}

/** Finds a message's codec; throws for a name that no file defines (a programmer's error). */
export function messageCodec(name: string): MessageCodec {
  const definition = protoDefinitions()[name];
  if (definition === undefined || !isMessage(definition)) throw new Error(`no message ${name} in protos/`);
  const { serialize, deserialize } = definition;
  return {
    encode: (message) => serialize(message),
    decode: (bytes) => deserialize(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)),
  };
}

function isMessage(definition: AnyDefinition): definition is MessageTypeDefinition<object, object> {
  return typeof definition["serialize" as keyof AnyDefinition] === "function";
}
