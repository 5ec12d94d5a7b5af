// What every Node process of the CLI is started with. Its caller gives it a pipe as file descriptor 3.
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { NODE_ARGUMENTS } from "@moevie/contracts";

/** The common arguments, and the preload that ends the process when this one is gone, from its first line on. */
export function nodeArguments(root: string): readonly string[] {
  const watch = pathToFileURL(join(root, "packages", "runtime", "src", "parent-watch-main.ts"));
  return [...NODE_ARGUMENTS, `--import=${watch.href}`];
}
