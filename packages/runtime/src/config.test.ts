// Settings: defaults, parsing, and errors that name variable, value and what is allowed.
import { describe, expect, it } from "vitest";
import { readConfig } from "./config.ts";

describe("readConfig", () => {
  it("fills defaults, parses and freezes", () => {
    const config = readConfig(
      { MOEVIE_SHARD_INDEX: "3" },
      {
        MOEVIE_SHARD_INDEX: { kind: "int", min: 0, max: 8 },
        MOEVIE_WIRE_TYPE: { kind: "enum", values: ["f32", "bf16"], default: "f32" },
      },
    );
    expect(config).toEqual({ MOEVIE_SHARD_INDEX: 3, MOEVIE_WIRE_TYPE: "f32" });
    expect(Object.isFrozen(config)).toBe(true);
  });
  it.each([
    ["", /MOEVIE_SHARD_INDEX is not set/],
    ["x", /MOEVIE_SHARD_INDEX is "x"; allowed: a whole number from 0 to 8/],
    ["9", /is "9"/],
    ["1.5", /is "1.5"/],
  ])("names variable, value and what is allowed for %j", (value, message) => {
    expect(() =>
      readConfig({ MOEVIE_SHARD_INDEX: value }, { MOEVIE_SHARD_INDEX: { kind: "int", min: 0, max: 8 } }),
    ).toThrow(message);
  });
});
