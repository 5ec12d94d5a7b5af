// A small language for writing ONNX graphs: every call adds a node and returns the name of its result.
// Holds the pieces every architecture needs (linear layers, norms, modulation); no architecture, no I/O.
import type { ElementType, StoredTensor } from "@moevie/tensor";
import {
  encodeModel,
  ONNX_TYPE,
  type Attribute,
  type Initializer,
  type Node,
  type OnnxType,
  type Value,
} from "./onnx-model.ts";

/** A stored tensor and the file it is in, as graphs name it: root name, slash, path inside the root. */
export type PlacedTensor = StoredTensor & { readonly location: string };

/** Looks weights up by name. */
export type WeightSource = {
  tensor(name: string): PlacedTensor;
  /** The tensor's own bytes, for those too small to be referenced. */
  bytes?(tensor: PlacedTensor): Uint8Array;
};

/**
 * Tensors up to this size are written into the graph: the runtime reads such small ones while it optimises, and for a model given
 * as bytes it cannot find the file then ("model_path must not be empty").
 */
const INLINE_BYTES_MAX = 127;

/** Name of a value inside the graph being built. */
export type Name = string;
export type Attributes = Readonly<Record<string, Attribute>>;
const CONTRIB = "com.microsoft";

/** What graphs compute in. */
export type FloatType = "f32" | "f16" | "bf16";

/** The ONNX type a stored element type is referenced as. */
function onnxType(name: string, type: ElementType): OnnxType {
  if (Object.hasOwn(ONNX_TYPE, type)) return type as OnnxType;
  throw new Error(`tensor ${name}: element type ${type} cannot be used in a graph`);
}

export class GraphBuilder {
  readonly name: string;
  readonly #nodes: Node[] = [];
  readonly #initializers: Initializer[] = [];
  readonly #inputs: Value[] = [];
  readonly #outputs: Value[] = [];
  /** Constants and widened weights already made, by what they are. */
  readonly #made = new Map<string, Name>();
  #count = 0;

  constructor(name: string) {
    this.name = name;
  }

  #fresh(stem: string): Name {
    return `${stem}_${this.#count++}`;
  }

  input(name: string, type: OnnxType, shape: readonly (number | string)[]): Name {
    this.#inputs.push({ name, type, shape });
    return name;
  }

  /** Makes `value` the graph output `name`. */
  output(name: string, value: Name, type: OnnxType, shape: readonly (number | string)[]): void {
    this.#nodes.push({ op: "Identity", domain: "", inputs: [value], outputs: [name], attributes: {} });
    this.#outputs.push({ name, type, shape });
  }

  /** Adds a node with several results. An empty input name stands for an optional input left out. */
  nodes(op: string, inputs: readonly Name[], outputCount: number, attributes: Attributes = {}, domain = ""): Name[] {
    const outputs = Array.from({ length: outputCount }, () => this.#fresh(op));
    this.#nodes.push({ op, domain, inputs, outputs, attributes });
    return outputs;
  }

  op(op: string, inputs: readonly Name[], attributes: Attributes = {}): Name {
    return this.nodes(op, inputs, 1, attributes)[0]!;
  }

  /** A node of the runtime's own operator set. */
  fused(op: string, inputs: readonly Name[], attributes: Attributes = {}): Name {
    return this.nodes(op, inputs, 1, attributes, CONTRIB)[0]!;
  }

  #constant(type: "f32" | "i64", values: readonly number[], shape: readonly number[]): Name {
    return this.#once(`${type}:${shape.join(",")}:${values.join(",")}`, () => {
      const wide = type === "f32" ? Float32Array.from(values) : BigInt64Array.from(values, BigInt);
      const name = this.#fresh("constant");
      this.#initializers.push({ name, type, shape, data: new Uint8Array(wide.buffer) });
      return name;
    });
  }

  f32(value: number): Name {
    return this.#constant("f32", [value], []);
  }

  f32s(values: readonly number[], shape: readonly number[] = [values.length]): Name {
    return this.#constant("f32", values, shape);
  }

  i64(value: number): Name {
    return this.#constant("i64", [value], []);
  }

  i64s(values: readonly number[]): Name {
    return this.#constant("i64", values, [values.length]);
  }

  /** A stored tensor as `type`, left where it is; the runtime casts one of another type once, when it loads the graph. */
  weight(source: WeightSource, name: string, type: FloatType = "f32"): Name {
    return this.#cast(source, source.tensor(name), type);
  }

  /** Entry `index` of a stored tensor's first axis, as f32. */
  weightSlice(source: WeightSource, name: string, index: number): Name {
    const { dtype, shape, offset, length, location } = source.tensor(name);
    const bytes = length / shape[0]!;
    const slice = {
      name: `${name}.${index}`,
      dtype,
      shape: shape.slice(1),
      offset: offset + index * bytes,
      length: bytes,
      location,
    };
    return this.#cast(source, slice, "f32");
  }

  #cast(source: WeightSource, tensor: PlacedTensor, wanted: FloatType): Name {
    const { name, dtype, location } = tensor;
    const stored = this.#initializer(source, tensor);
    return dtype === wanted ? stored : this.#once(`${location}:${name}:${wanted}`, () => this.cast(stored, wanted));
  }

  /** A stored tensor as it is, for tables of which a few rows are taken. */
  stored(source: WeightSource, name: string): Name {
    return this.#initializer(source, source.tensor(name));
  }

  #initializer(source: WeightSource, tensor: PlacedTensor): Name {
    const type = onnxType(tensor.name, tensor.dtype);
    return this.#once(`${tensor.location}:${tensor.name}`, () => this.#initialize(source, tensor, type));
  }

  #initialize(source: WeightSource, tensor: PlacedTensor, type: OnnxType): Name {
    const { shape, offset, length, location } = tensor;
    const name = `${tensor.name}.stored`;
    const data = length <= INLINE_BYTES_MAX ? source.bytes?.(tensor) : undefined;
    const place = data === undefined ? { external: { location, offset, length } } : { data };
    this.#initializers.push({ name, type, shape, ...place });
    return name;
  }

  #once(key: string, make: () => Name): Name {
    const made = this.#made.get(key) ?? make();
    this.#made.set(key, made);
    return made;
  }

  cast(value: Name, type: OnnxType): Name {
    return this.op("Cast", [value], { to: { int: ONNX_TYPE[type] } });
  }

  add(a: Name, b: Name): Name {
    return this.op("Add", [a, b]);
  }

  mul(a: Name, b: Name): Name {
    return this.op("Mul", [a, b]);
  }

  reshape(value: Name, shape: readonly number[]): Name {
    return this.op("Reshape", [value, this.i64s(shape)]);
  }

  transpose(value: Name, order: readonly number[]): Name {
    return this.op("Transpose", [value], { perm: { ints: order } });
  }

  concat(values: readonly Name[], axis: number): Name {
    return this.op("Concat", values, { axis: { int: axis } });
  }

  split(value: Name, axis: number, sizes: readonly number[]): Name[] {
    return this.nodes("Split", [value, this.i64s(sizes)], sizes.length, { axis: { int: axis } });
  }

  silu(value: Name): Name {
    return this.mul(value, this.op("Sigmoid", [value]));
  }

  geluTanh(value: Name): Name {
    return this.op("Gelu", [value], { approximate: { text: "tanh" } });
  }

  /** `rows` [n, in] through linear layer `name`, whose weight is stored [out, in], computed in `type` -> [n, out] of that type. */
  gemm(source: WeightSource, name: string, rows: Name, bias: boolean, type: FloatType = "f32"): Name {
    const inputs = [type === "f32" ? rows : this.cast(rows, type), this.weight(source, `${name}.weight`, type)];
    if (bias) inputs.push(this.weight(source, `${name}.bias`, type));
    return this.op("Gemm", inputs, { transB: { int: 1 } });
  }

  /** `rows` [a * b, width] in the shape of `like` [a, b, …] -> [a, b, width]. */
  back(rows: Name, like: Name, width: number): Name {
    const outer = this.op("Shape", [like], { start: { int: 0 }, end: { int: 2 } });
    return this.op("Reshape", [rows, this.concat([outer, this.i64s([width])], 0)]);
  }

  /** LayerNorm over the last axis of `width`; without an affine part when `scale` is not given. */
  layerNorm(value: Name, width: number, epsilon: number, scale?: Name, bias?: Name): Name {
    const ones = scale ?? this.f32s(Array.from({ length: width }, () => 1));
    const inputs = bias === undefined ? [value, ones] : [value, ones, bias];
    return this.op("LayerNormalization", inputs, { axis: { int: -1 }, epsilon: { float: epsilon } });
  }

  /** RMS norm over the last axis with a learnt scale. */
  rmsNorm(value: Name, scale: Name, epsilon: number): Name {
    return this.op("SimplifiedLayerNormalization", [value, scale], {
      axis: { int: -1 },
      epsilon: { float: epsilon },
      stash_type: { int: 1 },
    });
  }

  /** value * (1 + scale) + shift. */
  modulate(value: Name, scale: Name, shift: Name): Name {
    return this.add(this.mul(value, this.add(scale, this.f32(1))), shift);
  }

  /** What goes in and comes out, for the manifest. */
  signature(): { inputs: readonly Value[]; outputs: readonly Value[] } {
    return { inputs: this.#inputs, outputs: this.#outputs };
  }

  encode(): Uint8Array {
    return encodeModel({
      name: this.name,
      nodes: this.#nodes,
      initializers: this.#initializers,
      inputs: this.#inputs,
      outputs: this.#outputs,
    });
  }
}
