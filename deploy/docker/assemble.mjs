// Lays out what one service needs at run time: its own dist, those of the packages it depends on, protos, licences and the
// production dependencies. Run after `pnpm build`: node deploy/docker/assemble.mjs SERVICE FOLDER
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const [service, target] = process.argv.slice(2);
if (service === undefined || target === undefined || !existsSync(join(root, "packages", service, "dist", "main.js"))) {
  console.error("usage: assemble.mjs SERVICE FOLDER; run the build first");
  process.exit(2);
}

const manifestOf = (name) => JSON.parse(readFileSync(join(root, "packages", name, "package.json"), "utf8"));

/** The service and every package of ours it reaches. */
function closure(name, seen = new Set()) {
  if (seen.has(name)) return seen;
  seen.add(name);
  for (const dependency of Object.keys(manifestOf(name).dependencies ?? {})) {
    if (dependency.startsWith("@moevie/")) closure(dependency.slice("@moevie/".length), seen);
  }
  return seen;
}

/** Copies a package as built: exports lead to dist, tests and types stay behind. */
function copyPackage(name) {
  const from = join(root, "packages", name);
  const to = join(target, "packages", name);
  const manifest = manifestOf(name);
  const built = JSON.stringify(manifest.exports).replaceAll("./src/", "./dist/").replaceAll('.ts"', '.js"');
  mkdirSync(to, { recursive: true });
  cpSync(join(from, "dist"), join(to, "dist"), { recursive: true, filter: (path) => !/\.d\.ts$|\.tsbuildinfo$/.test(path) });
  const { devDependencies: _dev, scripts: _scripts, ...kept } = manifest;
  writeFileSync(join(to, "package.json"), `${JSON.stringify({ ...kept, exports: JSON.parse(built) }, null, 2)}\n`);
}

/** The runtime ships every platform's libraries in one package; an image needs its own. */
function dropForeignPlatforms() {
  const store = join(target, "node_modules", ".pnpm");
  for (const name of existsSync(store) ? readdirSync(store) : []) {
    if (!name.startsWith("onnxruntime-node@")) continue;
    const bin = join(store, name, "node_modules", "onnxruntime-node", "bin");
    for (const abi of readdirSync(bin)) {
      for (const platform of readdirSync(join(bin, abi))) {
        const folder = join(bin, abi, platform);
        if (platform !== process.platform) rmSync(folder, { recursive: true });
        else for (const arch of readdirSync(folder)) if (arch !== process.arch) rmSync(join(folder, arch), { recursive: true });
      }
    }
  }
}

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
for (const name of closure(service)) copyPackage(name);
for (const path of ["protos", "LICENSE", "docs/licences.md", "pnpm-workspace.yaml", "pnpm-lock.yaml", "tools/patches"]) {
  if (existsSync(join(root, path))) cpSync(join(root, path), join(target, path), { recursive: true });
}
const rootManifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { name, version, license, type, packageManager, devDependencies } = rootManifest;
writeFileSync(join(target, "package.json"), `${JSON.stringify({ name, private: true, version, license, type, packageManager, devDependencies }, null, 2)}\n`);
const pnpm = join(process.env.MOEVIE_CACHE ?? join(root, ".cache"), "pnpm", "bin", "pnpm.mjs");
const store = join(process.env.MOEVIE_CACHE ?? join(root, ".cache"), "pnpm-store");
const install = spawnSync(process.execPath, [pnpm, "install", "--prod", "--frozen-lockfile", "--prefer-offline", "--ignore-scripts", "--reporter=append-only", `--store-dir=${store}`], {
  cwd: target,
  stdio: "inherit",
  env: { ...process.env, CI: "true" },
});
if (install.status !== 0) process.exit(1);
dropForeignPlatforms();
