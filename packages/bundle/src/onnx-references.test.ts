// Reading and rewriting references in hand-made model bytes: everything else must survive untouched.
import * as fc from "fast-check";
import protobuf from "protobufjs/minimal.js";
import { expect, test } from "vitest";
import { hiddenPartOf, operatorsOf, placeReferences, referencesOf } from "./onnx-references.ts";

type Write = (writer: protobuf.Writer) => void;
const message =
  (field: number, ...parts: Write[]): Write =>
  (writer) => {
    writer.uint32((field << 3) | 2).fork();
    for (const part of parts) part(writer);
    writer.ldelim();
  };
const text =
  (field: number, value: string): Write =>
  (writer) =>
    void writer.uint32((field << 3) | 2).string(value);
const whole =
  (field: number, value: number): Write =>
  (writer) =>
    void writer.uint32(field << 3).int64(value);
const entry = (key: string, value: string): Write => message(13, text(1, key), text(2, value));
const node = (op: string, domain: string): Write =>
  message(1, text(1, "x"), text(2, "y"), text(4, op), text(7, domain));

function model(location: string, offset: number): Uint8Array {
  const writer = protobuf.Writer.create();
  const inside = message(5, whole(1, 3), whole(2, 1), text(8, "inside"), text(9, "123456789abc"));
  const outside = message(
    5,
    whole(1, 4),
    whole(1, 5),
    whole(2, 10),
    text(8, "w"),
    entry("location", location),
    entry("offset", String(offset)),
    entry("length", "40"),
    whole(14, 1),
  );
  for (const part of [
    whole(1, 10),
    message(7, node("Gemm", ""), node("MoE", "com.microsoft"), text(2, "g"), inside, outside),
    message(8, whole(2, 21)),
  ])
    part(writer);
  return writer.finish();
}

test("operators and outside weights are found", () => {
  const bytes = model("weights/a.safetensors", 800);
  expect([...operatorsOf(bytes)]).toEqual(["Gemm", "com.microsoft:MoE"]);
  expect(referencesOf(bytes)).toEqual([
    { name: "w", elements: 20, location: "weights/a.safetensors", offset: 800, length: 40 },
  ]);
});

const encode = (...parts: Write[]): Uint8Array => {
  const writer = protobuf.Writer.create();
  for (const part of parts) part(writer);
  return writer.finish();
};

test("a weight is outside however its place is spelled", () => {
  for (const location of [2 ** 32 + 1, 2, 1]) {
    const tensor = message(5, whole(1, 1), text(8, "w"), entry("location", "a"), whole(14, location));
    expect(referencesOf(encode(message(7, tensor)))).toHaveLength(1);
  }
  const unsaid = message(5, whole(1, 1), text(8, "w"), entry("location", "a"));
  expect(referencesOf(encode(message(7, unsaid)))).toHaveLength(1);
});

test("parts that could hide operators or weights are found, a graph of ours has none", () => {
  expect(hiddenPartOf(model("a", 0))).toBeUndefined();
  const nodeWith = (field: number): Write => message(7, message(1, text(4, "Add"), message(5, message(field))));
  expect(hiddenPartOf(encode(message(25)))).toBe("field 25 of the model");
  expect(hiddenPartOf(encode(message(20)))).toBe("field 20 of the model");
  expect(hiddenPartOf(encode(message(7, message(15))))).toBe("field 15 of the graph");
  for (const field of [5, 6, 10, 11, 22, 23])
    expect(hiddenPartOf(encode(nodeWith(field)))).toBe(`field ${field} of an attribute`);
});

test("placing references gives the bytes that would have been written with them in the first place", () => {
  fc.assert(
    fc.property(fc.string(), fc.string({ maxLength: 300 }), fc.nat(), (from, to, offset) => {
      const moved = placeReferences(model(from, 8), ({ length }) => ({ location: to, offset, length }));
      expect(referencesOf(moved)).toEqual([
        { name: "w", elements: 20, location: to.toWellFormed(), offset, length: 40 },
      ]);
      expect(operatorsOf(moved)).toEqual(operatorsOf(model(from, 8)));
      expect(placeReferences(moved, ({ length }) => ({ location: from, offset: 8, length })).length).toBe(
        model(from, 8).length,
      );
    }),
  );
});
