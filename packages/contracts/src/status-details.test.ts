// The details trailer of an error: what we write is read again, and bytes that are no details make a plain error, never a crash.
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { GRPC_CODE, MoevieError } from "./errors.ts";
import { messageCodec } from "./protos.ts";
import { decodeStatusDetails, encodeStatusDetails } from "./status-details.ts";

const failed = (details: Uint8Array): MoevieError =>
  decodeStatusDetails({ code: GRPC_CODE.UNAVAILABLE, text: "gone", details, peer: "gateway", cause: undefined });
const status = (...details: object[]): Buffer =>
  messageCodec("google.rpc.Status").encode({ code: 14, message: "gone", details });
const PLAIN = { reason: "PEER_UNAVAILABLE", message: "gone", violations: [], retryAfterMs: undefined };

test("reason, violations and delay come back as they were written", () => {
  const violations = [{ field: "a", description: "b" }];
  const error = new MoevieError("QUEUE_FULL", "full", { violations, retryAfterMs: 1500 });
  expect(failed(encodeStatusDetails(error))).toMatchObject({ reason: "QUEUE_FULL", violations, retryAfterMs: 1500 });
});

test("bytes that were needed and free come back as numbers, and are there only where both are known", () => {
  const memory = { neededBytes: 126_000_000_000, freeBytes: 0 };
  expect(failed(encodeStatusDetails(new MoevieError("OUT_OF_MEMORY", "full", { memory }))).memory).toEqual(memory);
  expect(failed(encodeStatusDetails(new MoevieError("OUT_OF_MEMORY", "full"))).memory).toBeUndefined();
});

test.each([
  ["no protobuf", Buffer.from("not a status")],
  ["cut short", encodeStatusDetails(new MoevieError("QUEUE_FULL", "full")).subarray(0, 20)],
  ["a detail of a type nobody knows", status({ type_url: "type.example.com/x.Y", value: Buffer.from([1, 2]) })],
  [
    "a detail that is no message of its type",
    // google.rpc.Status.details (field 3) with an Any: type_url (1), value (2).
    Buffer.concat([
      Buffer.from([0x1a, 48, 0x0a, 40]),
      Buffer.from("type.googleapis.com/google.rpc.ErrorInfo"),
      Buffer.from([0x12, 4, 0xff, 0xff, 0xff, 0xff]),
    ]),
  ],
  ["a delay that is not given", status({ "@type": "type.googleapis.com/google.rpc.RetryInfo" })],
])("%s is a plain error", (_what, bytes) => {
  expect(failed(bytes)).toMatchObject(PLAIN);
});

test.each([
  ["Received RST_STREAM with code 0 (Call ended without gRPC status)", "PEER_UNAVAILABLE"],
  ["Something unexpected went wrong.", "INTERNAL"],
])("code 13 that says %s is %s", (text, reason) => {
  const call = { code: GRPC_CODE.INTERNAL, text, details: undefined, peer: "gateway", cause: undefined };
  expect(decodeStatusDetails(call).reason).toBe(reason);
});

test("no bytes at all make it throw", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => failed(bytes) instanceof MoevieError));
});
