// Holds the import table: which package may import which, and who may touch which library.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT, importsOf, packageOf, packageSources, productionSources, type Import } from "./source-files.ts";

const FOUNDATION = [
  "contracts",
  "tensor",
  "diffusion",
  "placement",
  "bundle",
  "importer",
  "runtime",
  "fabric",
  "job-store",
];
const SERVICES = ["gateway", "text-encoder", "scheduler", "router", "expert-shard", "decoder", "controller"];

/** Package → packages of ours that it may import. A package that is not here may not exist. */
const TABLE: Readonly<Record<string, readonly string[]>> = {
  contracts: [],
  tensor: [],
  diffusion: [],
  placement: [],
  bundle: ["tensor"],
  importer: ["tensor"],
  runtime: ["contracts", "tensor"],
  fabric: ["contracts", "tensor", "runtime"],
  "job-store": ["contracts", "runtime"],
  ...Object.fromEntries(SERVICES.map((service) => [service, FOUNDATION.filter((name) => name !== "importer")])),
  client: ["contracts"],
  // placement for `experts plan`, which asks no server: docs/decisions/placement-plan.md.
  cli: ["client", "contracts", "bundle", "runtime", "placement"],
  "starter-model": [],
};

/** Library → the only places that may import it. */
const OWNERS: readonly { readonly library: RegExp; readonly owners: readonly RegExp[] }[] = [
  { library: /^@grpc\/grpc-js$/, owners: [/^packages\/(runtime|fabric|client)\//] },
  { library: /^(@grpc\/reflection|grpc-health-check)$/, owners: [/^packages\/runtime\//] },
  { library: /^@grpc\/proto-loader$/, owners: [/^packages\/contracts\//] },
  { library: /^onnxruntime-node$/, owners: [/^packages\/runtime\/src\/onnx-session\.ts$/] },
  { library: /^node-av/, owners: [/^packages\/cli\/src\/commands\/doctor\.ts$/, /^packages\/decoder\//] },
  { library: /^prom-client$/, owners: [/^packages\/runtime\/src\/metrics\.ts$/] },
  { library: /^pino(-pretty)?$/, owners: [/^packages\/runtime\/src\/logger\.ts$/] },
  { library: /^@opentelemetry\//, owners: [/^packages\/runtime\/src\/tracing-otlp\.ts$/] },
  { library: /^node:sqlite$/, owners: [/^packages\/job-store\//, /^packages\/cli\/src\/supervisor\/data-lock\.ts$/] },
  { library: /^@nats-io\//, owners: [/^packages\/job-store\//] },
  { library: /^@kubernetes\//, owners: [/^packages\/controller\//] },
  { library: /^commander$/, owners: [/^packages\/cli\//] },
  // It stands still when both ends write: docs/decisions/exchange-own-http2.md.
  { library: /^(node:)?http2$/, owners: [] },
];

const ours = (each: Import): string | undefined => /^@moevie\/([^/]+)/.exec(each.specifier)?.[1];
const show = (each: Import): string => `${each.file} imports ${each.specifier}`;
const imports = productionSources().flatMap(importsOf);

describe("the import table", () => {
  test("every package is in it", () => {
    const unknown = new Set(
      packageSources()
        .map((file) => packageOf(file.path))
        .filter((name) => !(name in TABLE)),
    );
    expect([...unknown]).toEqual([]);
  });

  test("a package imports only what its layer allows", () => {
    const wrong = imports.filter((each) => {
      const target = ours(each);
      return target !== undefined && !(TABLE[packageOf(each.file)] ?? []).includes(target);
    });
    expect(wrong.map(show)).toEqual([]);
  });

  test("packages meet at their public entries: no deep import, no relative path out of a package", () => {
    const wrong = packageSources()
      .flatMap(importsOf)
      .filter((each) => {
        if (/^@moevie\/[^/]+\//.test(each.specifier)) return true;
        if (!each.specifier.startsWith(".")) return false;
        const target = join("/", each.file, "..", each.specifier);
        return !target.startsWith(`/packages/${packageOf(each.file)}/`);
      });
    expect(wrong.map(show)).toEqual([]);
  });

  test("libraries stay behind their owners", () => {
    const wrong = imports.filter((each) =>
      OWNERS.some(
        ({ library, owners }) => library.test(each.specifier) && !owners.some((owner) => owner.test(each.file)),
      ),
    );
    expect(wrong.map(show)).toEqual([]);
  });

  test("exactly one file imports onnxruntime-node", () => {
    const files = new Set(
      imports.filter((each) => each.specifier === "onnxruntime-node" && each.runtime).map((each) => each.file),
    );
    expect([...files]).toEqual(["packages/runtime/src/onnx-session.ts"]);
  });

  test("the Kubernetes client is only ever loaded on demand", () => {
    const eager = imports.filter((each) => each.specifier.startsWith("@kubernetes/") && each.runtime);
    const dynamic = productionSources().filter((file) => /\bimport\("@kubernetes\/client-node"\)/.test(file.text));
    expect([...new Set(eager.map(({ file }) => file))]).toEqual(dynamic.map((file) => file.path));
    expect(dynamic.filter((file) => /^import \{.*"@kubernetes\//m.test(file.text))).toEqual([]);
  });

  test("OpenTelemetry is only ever loaded on demand", () => {
    const eager = productionSources().filter((file) => /\bfrom\s+["']\.\/tracing-otlp\.ts["']/.test(file.text));
    expect(eager.map((file) => file.path)).toEqual([]);
  });
});

describe("the shape of a service", () => {
  test.each(SERVICES)("%s has main.ts, config.ts and service.ts", (service) => {
    const missing = ["main.ts", "config.ts", "service.ts"].filter(
      (name) => !existsSync(join(ROOT, "packages", service, "src", name)),
    );
    expect(missing).toEqual([]);
  });

  test("no module is named after nothing: utils, common, helpers, types, misc", () => {
    const vague = packageSources().filter((file) =>
      /\/(utils?|common|helpers?|types|misc)(\.test)?\.ts$/.test(file.path),
    );
    expect(vague.map((file) => file.path)).toEqual([]);
  });
});
