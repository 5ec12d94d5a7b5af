// The text-encoder's settings; the only file here that sees the environment.
import { DEVICE_SETTINGS, readConfig, type Settings } from "@moevie/runtime";

export type TextEncoderConfig = Settings<typeof DEVICE_SETTINGS>;

/** Throws CONFIG_INVALID that names the variable. */
export function readTextEncoderConfig(env: Readonly<Record<string, string | undefined>>): TextEncoderConfig {
  return readConfig(env, DEVICE_SETTINGS);
}
