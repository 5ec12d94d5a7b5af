// A real browser for the tests: Chromium out of a pinned npm package, fetched into the cache once, driven by Playwright.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import { chromium, type Browser } from "playwright-core";
import { fetchPackage, tarballFile, type PinnedPackage } from "../support/npm-package.ts";

const CHROMIUM: PinnedPackage = {
  name: "@sparticuz/chromium",
  version: "147.0.0",
  integrity: "sha512-4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ==",
};
const FILE_BYTES_MAX = 512 * 1024 * 1024;
const CACHE = process.env["MOEVIE_CACHE"] || fileURLToPath(new URL("../../.cache", import.meta.url));

/** Folder with the program and the libraries it may lack. Throws with npm's last line when the registry cannot be reached. */
function chromiumFolder(): string {
  const folder = join(CACHE, `chromium-${CHROMIUM.version}`);
  if (existsSync(join(folder, "chromium"))) return folder;
  mkdirSync(CACHE, { recursive: true });
  const scratch = mkdtempSync(join(CACHE, "fetch-"));
  try {
    const tarball = fetchPackage(CHROMIUM, scratch);
    const staged = join(scratch, "staged");
    mkdirSync(staged);
    const part = (name: string): Buffer =>
      brotliDecompressSync(tarballFile(tarball, `package/bin/${name}.br`, FILE_BYTES_MAX));
    const libraries = spawnSync("tar", ["-x", "-C", staged], { input: part("al2023.tar") });
    if (libraries.status !== 0) throw new Error(`cannot unpack the libraries of ${CHROMIUM.name}`);
    writeFileSync(join(staged, "chromium"), part("chromium"), { mode: 0o755 });
    rmSync(folder, { recursive: true, force: true });
    renameSync(staged, folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return folder;
}

/** Starts the browser; the caller closes it. */
export function startBrowser(): Promise<Browser> {
  const folder = chromiumFolder();
  const executablePath = join(folder, "chromium");
  const lacks = spawnSync("ldd", [executablePath], { encoding: "utf8" }).stdout.includes("not found");
  const env = { ...process.env, ...(lacks && { LD_LIBRARY_PATH: join(folder, "lib") }) } as Record<string, string>;
  return chromium.launch({ executablePath, env, args: ["--no-sandbox", "--disable-gpu"] });
}
