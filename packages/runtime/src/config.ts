// Settings have three moments: raw environment, with defaults, frozen. A bad value stops the process and names itself.
import { isAbsolute } from "node:path";
import { MoevieError, type EnvironmentName } from "@moevie/contracts";
import { parseAddress } from "./address.ts";

interface Setting<Kind extends string, T> {
  readonly kind: Kind;
  /** Without a default the variable is required. */
  readonly default?: T;
}
export type SettingSpec =
  | Setting<"string", string>
  | (Setting<"int", number> & { readonly min: number; readonly max: number })
  | (Setting<"float", number> & { readonly min: number; readonly max: number })
  | Setting<"bool", boolean>
  | Setting<"list", readonly string[]>
  | (Setting<"enum", string> & { readonly values: readonly string[] })
  /** An absolute path. */
  | Setting<"path", string>
  | Setting<"address", string>
  /** http or https. */
  | Setting<"url", string>;

type ValueOf<S extends SettingSpec> = S extends { kind: "int" | "float" }
  ? number
  : S extends { kind: "bool" }
    ? boolean
    : S extends { kind: "list" }
      ? readonly string[]
      : S extends { kind: "enum"; values: readonly (infer V)[] }
        ? V
        : string;
export type Settings<T extends Partial<Record<EnvironmentName, SettingSpec>>> = {
  readonly [K in keyof T]: T[K] extends SettingSpec ? ValueOf<T[K]> : never;
};

/** Reads the named variables of `env`. Throws CONFIG_INVALID that names variable, value and what is allowed. */
export function readConfig<const T extends Partial<Record<EnvironmentName, SettingSpec>>>(
  env: Readonly<Record<string, string | undefined>>,
  specs: T,
): Settings<T> {
  const out: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(specs) as [string, SettingSpec][]) {
    const raw = env[name];
    if (raw === undefined || raw === "") {
      if (spec.default === undefined)
        throw new MoevieError("CONFIG_INVALID", `${name} is not set; allowed: ${allowed(spec)}`);
      out[name] = spec.default;
    } else out[name] = parse(name, raw, spec);
  }
  return Object.freeze(out) as Settings<T>;
}

function parse(name: string, raw: string, spec: SettingSpec): unknown {
  const bad = (): MoevieError => new MoevieError("CONFIG_INVALID", `${name} is "${raw}"; allowed: ${allowed(spec)}`);
  switch (spec.kind) {
    case "int":
    case "float": {
      const value = Number(raw);
      if (
        raw.trim() !== raw ||
        !Number.isFinite(value) ||
        (spec.kind === "int" && !Number.isInteger(value)) ||
        value < spec.min ||
        value > spec.max
      )
        throw bad();
      return value;
    }
    case "bool":
      if (raw !== "1" && raw !== "0" && raw !== "true" && raw !== "false") throw bad();
      return raw === "1" || raw === "true";
    case "list":
      return Object.freeze(
        raw
          .split(",")
          .map((item) => item.trim())
          .filter((item) => item !== ""),
      );
    case "enum":
      if (!spec.values.includes(raw)) throw bad();
      return raw;
    case "path":
      if (!isAbsolute(raw)) throw bad();
      return raw;
    case "address":
      parseAddress(raw, name);
      return raw;
    case "url":
      if (!/^https?:\/\/[^/]/.test(raw) || !URL.canParse(raw)) throw bad();
      return raw;
    case "string":
      return raw;
  }
}

function allowed(spec: SettingSpec): string {
  switch (spec.kind) {
    case "int":
      return `a whole number from ${spec.min} to ${spec.max}`;
    case "float":
      return `a number from ${spec.min} to ${spec.max}`;
    case "bool":
      return "1, 0, true or false";
    case "list":
      return "a comma-separated list";
    case "enum":
      return spec.values.join(", ");
    case "path":
      return "an absolute path";
    case "address":
      return "HOST:PORT or unix:PATH";
    case "url":
      return "a URL of http or https with a host";
    case "string":
      return "any text";
  }
}

/** Settings every service has. */
export const SERVICE_SETTINGS = {
  MOEVIE_SERVICE: { kind: "string", default: "" },
  MOEVIE_GRPC_LISTEN: { kind: "address", default: "127.0.0.1:0" },
  MOEVIE_HTTP_LISTEN: { kind: "address", default: "127.0.0.1:0" },
  MOEVIE_RUN_DIR: { kind: "path", default: "" },
  MOEVIE_SUPERVISED: { kind: "bool", default: false },
  MOEVIE_LOG_FORMAT: { kind: "enum", values: ["json", "pretty"], default: "json" },
  MOEVIE_LOG_LEVEL: { kind: "enum", values: ["trace", "debug", "info", "warn", "error", "fatal"], default: "info" },
  MOEVIE_REFLECTION: { kind: "bool", default: true },
  OTEL_EXPORTER_OTLP_ENDPOINT: { kind: "url", default: "" },
  OTEL_TRACES_SAMPLER_ARG: { kind: "float", min: 0, max: 1, default: 1 },
} as const satisfies Partial<Record<EnvironmentName, SettingSpec>>;

/** Settings of services that run graphs. */
export const DEVICE_SETTINGS = {
  MOEVIE_BUNDLE: { kind: "path" },
  MOEVIE_DEVICE: { kind: "string", default: "cpu" },
  MOEVIE_INTRA_OP_THREADS: { kind: "int", min: 1, max: 256, default: 1 },
} as const satisfies Partial<Record<EnvironmentName, SettingSpec>>;
