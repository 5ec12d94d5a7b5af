// Encodes an ONNX model as protobuf bytes. Knows the wire layout of onnx.proto (field numbers in the comments) and nothing
// about any architecture. Weights are written as references into other files, never as data.
// Source of the field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
import protobuf from "protobufjs/minimal.js";

type Writer = protobuf.Writer;

/** ONNX element types used by our graphs (TensorProto.DataType). */
export const ONNX_TYPE = {
  f32: 1,
  u8: 2,
  i8: 3,
  i32: 6,
  i64: 7,
  bool: 9,
  f16: 10,
  f64: 11,
  bf16: 16,
  f8_e4m3: 17,
} as const;
export type OnnxType = keyof typeof ONNX_TYPE;

export type Attribute = { int: number } | { float: number } | { text: string } | { ints: readonly number[] };
export type Node = {
  readonly op: string;
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
};
/** A graph input or output; a size that is a name is free at run time. */
export type Value = { readonly name: string; readonly type: OnnxType; readonly shape: readonly (number | string)[] };
/** A tensor in the file itself (`data`), or `length` bytes at `offset` of the file called `location`. */
export type Initializer = {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: readonly number[];
  readonly data?: Uint8Array;
  readonly external?: { readonly location: string; readonly offset: number; readonly length: number };
};
export type Graph = {
  readonly name: string;
  readonly nodes: readonly Node[];
  readonly initializers: readonly Initializer[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
};

const VARINT = 0;
const BYTES = 2;
const FIXED32 = 5;
const tag = (field: number, wire: number): number => (field << 3) | wire;
const IR_VERSION = 10;
const OPSET_VERSION = 21;

function text(writer: Writer, field: number, value: string): void {
  writer.uint32(tag(field, BYTES)).string(value);
}
function integer(writer: Writer, field: number, value: number): void {
  writer.uint32(tag(field, VARINT)).int64(value);
}
function message(writer: Writer, field: number, body: () => void): void {
  writer.uint32(tag(field, BYTES)).fork();
  body();
  writer.ldelim();
}

/** AttributeProto: name 1, f 2, i 3, s 4, ints 8, type 20. */
function writeAttribute(writer: Writer, name: string, attribute: Attribute): void {
  text(writer, 1, name);
  if ("float" in attribute) {
    writer.uint32(tag(2, FIXED32)).float(attribute.float);
    integer(writer, 20, 1);
  } else if ("int" in attribute) {
    integer(writer, 3, attribute.int);
    integer(writer, 20, 2);
  } else if ("text" in attribute) {
    text(writer, 4, attribute.text);
    integer(writer, 20, 3);
  } else {
    for (const value of attribute.ints) integer(writer, 8, value);
    integer(writer, 20, 7);
  }
}

/** NodeProto: input 1, output 2, name 3, op_type 4, attribute 5, domain 7. */
function writeNode(writer: Writer, node: Node): void {
  for (const name of node.inputs) text(writer, 1, name);
  for (const name of node.outputs) text(writer, 2, name);
  text(writer, 3, node.outputs[0] ?? node.op);
  text(writer, 4, node.op);
  for (const [name, attribute] of Object.entries(node.attributes))
    message(writer, 5, () => writeAttribute(writer, name, attribute));
  if (node.domain !== "") text(writer, 7, node.domain);
}

/** TensorProto: dims 1, data_type 2, name 8, raw_data 9, external_data 13 (key 1, value 2), data_location 14. */
function writeInitializer(writer: Writer, tensor: Initializer): void {
  for (const size of tensor.shape) integer(writer, 1, size);
  integer(writer, 2, ONNX_TYPE[tensor.type]);
  text(writer, 8, tensor.name);
  if (tensor.data !== undefined) writer.uint32(tag(9, BYTES)).bytes(tensor.data);
  if (tensor.external === undefined) return;
  for (const [key, value] of Object.entries(tensor.external)) {
    message(writer, 13, () => {
      text(writer, 1, key);
      text(writer, 2, String(value));
    });
  }
  integer(writer, 14, 1);
}

/** ValueInfoProto: name 1, type 2; TypeProto: tensor_type 1 (elem_type 1, shape 2); shape: dim 1 (dim_value 1, dim_param 2). */
function writeValue(writer: Writer, value: Value): void {
  text(writer, 1, value.name);
  message(writer, 2, () =>
    message(writer, 1, () => {
      integer(writer, 1, ONNX_TYPE[value.type]);
      message(writer, 2, () => {
        for (const size of value.shape) {
          message(writer, 1, () => (typeof size === "number" ? integer(writer, 1, size) : text(writer, 2, size)));
        }
      });
    }),
  );
}

/** ModelProto bytes of `graph`: ir_version 1, producer_name 2, graph 7, opset_import 8 (domain 1, version 2). */
export function encodeModel(graph: Graph): Uint8Array {
  const writer = protobuf.Writer.create();
  integer(writer, 1, IR_VERSION);
  text(writer, 2, "moevie");
  message(writer, 7, () => {
    for (const node of graph.nodes) message(writer, 1, () => writeNode(writer, node));
    text(writer, 2, graph.name);
    for (const tensor of graph.initializers) message(writer, 5, () => writeInitializer(writer, tensor));
    for (const value of graph.inputs) message(writer, 11, () => writeValue(writer, value));
    for (const value of graph.outputs) message(writer, 12, () => writeValue(writer, value));
  });
  message(writer, 8, () => integer(writer, 2, OPSET_VERSION));
  if (graph.nodes.some((node) => node.domain === "com.microsoft")) {
    message(writer, 8, () => {
      text(writer, 1, "com.microsoft");
      integer(writer, 2, 1);
    });
  }
  return writer.finish();
}
