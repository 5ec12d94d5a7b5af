// Turns the paths of a bundle into files on this machine, and refuses those that would leave the bundle or its roots.
import { realpath, stat } from "node:fs/promises";
import { isAbsolute, relative, resolve, sep } from "node:path";
import { BundleError } from "./bundle-error.ts";

function contains(folder: string, file: string): boolean {
  const way = relative(folder, file);
  return way !== "" && way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

export class Roots {
  readonly #bundle: string;
  readonly #folders: ReadonlyMap<string, string>;

  private constructor(bundle: string, folders: ReadonlyMap<string, string>) {
    this.#bundle = bundle;
    this.#folders = folders;
  }

  /** The roots named in a manifest, with symbolic links resolved. Throws BundleError for a folder that is missing. */
  static async open(bundle: string, roots: Readonly<Record<string, string>>): Promise<Roots> {
    const folders = new Map<string, string>();
    for (const [name, folder] of Object.entries(roots)) {
      const real = await realpath(resolve(bundle, folder)).catch((cause: unknown) => {
        throw new BundleError(`root ${name}`, `folder ${folder} is missing`, { cause });
      });
      folders.set(name, real);
    }
    return new Roots(bundle, folders);
  }

  /** Absolute file of `path`, without symbolic links, and its size. Throws BundleError: missing, no file, or outside its root. */
  async resolve(path: string): Promise<{ file: string; bytes: number }> {
    if (isAbsolute(path))
      throw new BundleError(path, "is absolute, expected a path inside the bundle or one of its roots");
    const [first, ...rest] = path.split("/");
    const root = this.#folders.get(first!);
    const folder = root ?? this.#bundle;
    const named = resolve(folder, root === undefined ? path : rest.join("/"));
    if (!contains(folder, named)) throw new BundleError(path, "leaves its root");
    const file = await realpath(named).catch((cause: unknown) => {
      throw new BundleError(path, "is missing", { cause });
    });
    if (!contains(folder, file)) throw new BundleError(path, "is a link that leaves its root");
    const facts = await stat(file);
    if (!facts.isFile()) throw new BundleError(path, "is no file");
    return { file, bytes: facts.size };
  }
}
