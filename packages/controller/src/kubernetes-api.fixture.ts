// As much of the Kubernetes API as controllers use, over real HTTPS: Leases and ConfigMaps of one namespace with resource versions that are
// compared, an account with rights, and the ways in which an API server fails. Holds no rule of ours.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const NAMESPACE = "clips";
const TOKEN = "token-of-the-controllers";
const PATHS =
  /^\/(?:apis\/coordination\.k8s\.io\/v1|api\/v1)\/namespaces\/clips\/(leases|configmaps)(?:\/([a-z0-9-]+))?$/;

interface Stored {
  readonly metadata: { readonly name: string; readonly resourceVersion?: string; readonly [more: string]: unknown };
  readonly [more: string]: unknown;
}

export class KubernetesApi {
  /** Verb and kind, such as "create leases", that are refused with 403. */
  readonly forbidden = new Set<string>();
  /** Every request that was answered, as "PUT leases 200". */
  readonly answered: string[] = [];
  /** answers: as a server does; hangs: takes requests and never answers; loses: does what is asked and never answers; fails: with 500. */
  mode: "answers" | "hangs" | "loses" | "fails" = "answers";
  readonly #objects = new Map<string, Stored>();
  readonly #folder = mkdtempSync(join(tmpdir(), "moevie-kubernetes-"));
  readonly #server = createServer(this.#certificate(), (request, response) => void this.#answer(request, response));
  #version = 0;

  static async start(): Promise<KubernetesApi> {
    const api = new KubernetesApi();
    await new Promise<void>((resolve) => api.#server.listen(0, "127.0.0.1", resolve));
    const { port } = api.#server.address() as AddressInfo;
    const named = {
      name: "test",
      user: { token: TOKEN },
      cluster: { server: `https://127.0.0.1:${port}`, "certificate-authority": join(api.#folder, "cert.pem") },
    };
    const context = { name: "test", context: { user: "test", cluster: "test", namespace: NAMESPACE } };
    const config = { users: [named], clusters: [named], contexts: [context], "current-context": "test" };
    writeFileSync(api.kubeconfig, JSON.stringify({ apiVersion: "v1", kind: "Config", ...config }));
    return api;
  }

  /** A file with address and account. */
  get kubeconfig(): string {
    return join(this.#folder, "kubeconfig.json");
  }

  /** The object as it lies here. */
  get(kind: "leases" | "configmaps", name: string): Stored | undefined {
    return this.#objects.get(`${kind}/${name}`);
  }

  /** As `kubectl` would write it: without comparing anything. */
  put(kind: "leases" | "configmaps", object: Stored): void {
    const metadata = { ...object.metadata, resourceVersion: String(++this.#version) };
    this.#objects.set(`${kind}/${metadata.name}`, { ...object, metadata });
  }

  delete(kind: "leases" | "configmaps", name: string): void {
    this.#objects.delete(`${kind}/${name}`);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#folder, { recursive: true });
  }

  #certificate(): { key: Buffer; cert: Buffer } {
    const [key, cert] = ["key.pem", "cert.pem"].map((name) => join(this.#folder, name)) as [string, string];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
    const made = [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      ...subject,
      "-keyout",
      key,
      "-out",
      cert,
    ];
    execFileSync("openssl", made, { stdio: "pipe" });
    return { key: readFileSync(key), cert: readFileSync(cert) };
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    if (this.mode === "hangs") return;
    const [code, body] = this.mode === "fails" ? [500, status(500)] : this.#apply(request, Buffer.concat(parts));
    if (this.mode === "loses") return;
    this.answered.push(`${request.method} ${PATHS.exec(request.url ?? "")?.[1]} ${code}`);
    response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(body));
  }

  #apply({ method = "", url = "", headers }: IncomingMessage, body: Buffer): [number, object] {
    const [, kind = "", name] = PATHS.exec(url) ?? [];
    if (headers.authorization !== `Bearer ${TOKEN}`) return [401, status(401)];
    const verb = { GET: "get", PUT: "update", POST: "create" }[method] ?? method;
    if (kind === "" || this.forbidden.has(`${verb} ${kind}`)) return [403, status(403)];
    const sent = body.length > 0 ? (JSON.parse(body.toString("utf8")) as Stored) : undefined;
    const key = `${kind}/${name ?? sent?.metadata.name}`;
    const found = this.#objects.get(key);
    if (method === "POST") {
      if (found !== undefined) return [409, status(409)];
    } else if (found === undefined) return [404, status(404)];
    if (sent !== undefined) {
      const { resourceVersion } = sent.metadata;
      if (found !== undefined && resourceVersion !== found.metadata.resourceVersion) return [409, status(409)];
      const metadata = { ...sent.metadata, resourceVersion: String(++this.#version) };
      this.#objects.set(key, { ...sent, metadata });
    }
    return [method === "POST" ? 201 : 200, this.#objects.get(key) ?? {}];
  }
}

function status(code: number): object {
  return { kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", message: `state ${code}`, code };
}
