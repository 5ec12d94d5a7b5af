// Reads and rewrites the parts of ONNX model bytes a bundle cares for: which operators a graph uses and where its weights lie.
// Works on the wire format directly and copies everything else untouched. Knows no architecture.
// Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
import protobuf from "protobufjs/minimal.js";

/** `length` bytes at `offset` of the file `location`. */
export type Reference = { readonly location: string; readonly offset: number; readonly length: number };
export type ReferencedTensor = Reference & { readonly name: string; readonly elements: number };

type Field = {
  readonly number: number;
  readonly wire: number;
  readonly raw: Uint8Array;
  readonly value: number;
  readonly body: Uint8Array;
};
const NOTHING = new Uint8Array(0);
const BYTES = 2;

/** The fields of one message, in order. Throws when the bytes are no protobuf message. */
function* fieldsOf(bytes: Uint8Array): Generator<Field> {
  const reader = protobuf.Reader.create(bytes);
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const tag = reader.uint32();
    const wire = tag & 7;
    let value = 0;
    let body: Uint8Array = NOTHING;
    if (wire === BYTES) {
      const length = reader.uint32();
      body = bytes.subarray(reader.pos, reader.pos + length);
      reader.skip(length);
    } else if (wire === 0) value = Number(reader.int64());
    else reader.skipType(wire);
    yield { number: tag >>> 3, wire, raw: bytes.subarray(start, reader.pos), value, body };
  }
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}

function* graphFields(model: Uint8Array): Generator<Field> {
  for (const field of fieldsOf(model)) if (field.number === 7) yield* fieldsOf(field.body);
}

/** Operators of `model` as `op` or `domain:op`, each once. */
export function operatorsOf(model: Uint8Array): Set<string> {
  const operators = new Set<string>();
  for (const field of graphFields(model)) {
    if (field.number !== 1) continue;
    let op = "";
    let domain = "";
    for (const part of fieldsOf(field.body)) {
      if (part.number === 4) op = textOf(part.body);
      if (part.number === 7) domain = textOf(part.body);
    }
    operators.add(domain === "" ? op : `${domain}:${op}`);
  }
  return operators;
}

/**
 * Fields that a graph of ours never has and that could hold operators or weights out of sight: of ModelProto training_info (20) and
 * functions (25), of GraphProto sparse_initializer (15), of AttributeProto t (5), g (6), tensors (10), graphs (11) and both sparse (22, 23).
 */
const HIDING = { model: [20, 25], graph: [15], attribute: [5, 6, 10, 11, 22, 23] } as const;
const ATTRIBUTE = 5;

function hides(place: keyof typeof HIDING, number: number): boolean {
  return (HIDING[place] as readonly number[]).includes(number);
}

/** What `model` has that could hide operators or weights from this file; undefined when there is nothing. */
export function hiddenPartOf(model: Uint8Array): string | undefined {
  for (const { number } of fieldsOf(model)) if (hides("model", number)) return `field ${number} of the model`;
  for (const { number, body } of graphFields(model)) {
    if (hides("graph", number)) return `field ${number} of the graph`;
    if (number !== 1) continue;
    for (const part of fieldsOf(body)) {
      if (part.number !== ATTRIBUTE) continue;
      for (const inner of fieldsOf(part.body)) {
        if (hides("attribute", inner.number)) return `field ${inner.number} of an attribute`;
      }
    }
  }
  return undefined;
}

/** TensorProto: dims 1, name 8, external_data 13 (key 1, value 2), data_location 14 (1 = external). */
function referenceOf(tensor: Uint8Array): ReferencedTensor | undefined {
  const entries: Record<string, string> = {};
  let name = "";
  let elements = 1;
  let external = false;
  for (const field of fieldsOf(tensor)) {
    if (field.number === 1) elements *= field.value;
    else if (field.number === 8) name = textOf(field.body);
    // The runtime reads an enum's lower 32 bits: whatever is not plainly 0 is taken to be outside.
    else if (field.number === 14) external ||= field.value !== 0;
    else if (field.number === 13) {
      external = true;
      const [key, value] = [...fieldsOf(field.body)].map((part) => textOf(part.body));
      entries[key ?? ""] = value ?? "";
    }
  }
  if (!external) return undefined;
  return {
    name,
    elements,
    location: entries["location"] ?? "",
    offset: Number(entries["offset"] ?? 0),
    length: Number(entries["length"] ?? -1),
  };
}

/** Weights `model` has outside itself. */
export function referencesOf(model: Uint8Array): ReferencedTensor[] {
  const found: ReferencedTensor[] = [];
  for (const field of graphFields(model)) {
    const reference = field.number === 5 ? referenceOf(field.body) : undefined;
    if (reference !== undefined) found.push(reference);
  }
  return found;
}

function writeBytes(writer: protobuf.Writer, number: number, body: Uint8Array): void {
  writer.uint32((number << 3) | BYTES).bytes(body);
}

/** Copies the fields of `bytes`, those that `change` answers for replaced. */
function rewrite(bytes: Uint8Array, change: (field: Field) => Uint8Array | undefined): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const field of fieldsOf(bytes)) {
    const changed = change(field);
    if (changed === undefined) {
      parts.push(field.raw);
      continue;
    }
    const writer = protobuf.Writer.create();
    writeBytes(writer, field.number, changed);
    parts.push(writer.finish());
  }
  return Buffer.concat(parts);
}

function withReference(tensor: Uint8Array, target: Reference): Uint8Array {
  const kept = [...fieldsOf(tensor)].filter((field) => field.number !== 13).map((field) => field.raw);
  const writer = protobuf.Writer.create();
  for (const [key, value] of Object.entries({
    location: target.location,
    offset: target.offset,
    length: target.length,
  })) {
    const entry = protobuf.Writer.create();
    writeBytes(entry, 1, Buffer.from(key));
    writeBytes(entry, 2, Buffer.from(String(value)));
    writeBytes(writer, 13, entry.finish());
  }
  return Buffer.concat([...kept, writer.finish()]);
}

/** `model` with every outside weight moved to where `place` says. */
export function placeReferences(model: Uint8Array, place: (tensor: ReferencedTensor) => Reference): Uint8Array {
  const graph = (body: Uint8Array): Uint8Array =>
    rewrite(body, (field) => {
      const reference = field.number === 5 ? referenceOf(field.body) : undefined;
      return reference === undefined ? undefined : withReference(field.body, place(reference));
    });
  return rewrite(model, (field) => (field.number === 7 ? graph(field.body) : undefined));
}
