// Settings: defaults, parsing, and errors that name variable, value and what is allowed.
import { describe, expect, it } from "vitest";
import { SERVICE_SETTINGS, readConfig } from "./config.ts";

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

  it.each([
    ["MOEVIE_SUPERVISED", "yes", '"yes"; allowed: 1, 0, true or false'],
    ["MOEVIE_RUN_DIR", "run", '"run"; allowed: an absolute path'],
    ["MOEVIE_GRPC_LISTEN", "localhost", '"localhost"; allowed: HOST:PORT with a port of 0 to 65535, or unix:PATH'],
    ["MOEVIE_GRPC_LISTEN", "localhost:70000", '"localhost:70000"; allowed: HOST:PORT'],
    ["MOEVIE_HTTP_LISTEN", `unix:/${"x".repeat(107)}`, "allowed: unix:PATH with a path of 1 to 107 bytes"],
    ["MOEVIE_LOG_LEVEL", "loud", '"loud"; allowed: trace, debug, info, warn, error, fatal'],
    ["OTEL_TRACES_SAMPLER_ARG", "1.5", '"1.5"; allowed: a number from 0 to 1'],
    ["OTEL_TRACES_SAMPLER_ARG", " 1", '" 1"; allowed: a number from 0 to 1'],
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", '"collector:4318"; allowed: a URL of http or https'],
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "http://", '"http://"; allowed: a URL of http or https'],
  ])("refuses %s=%s before anything starts", (name, value, words) => {
    expect(() => readConfig({ [name]: value }, SERVICE_SETTINGS)).toThrow(
      `${name} is ${words.startsWith('"') ? words : ""}`,
    );
    expect(() => readConfig({ [name]: value }, SERVICE_SETTINGS)).toThrow(words);
  });
});
