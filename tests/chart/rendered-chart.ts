// The chart rendered by the real helm and read by the real kubectl, so that tests look at Kubernetes objects and not at text.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { ROOT, kubernetesTools } from "./kubernetes-tools.ts";

export const CHART = join(ROOT, "helm", "moevie");
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

interface EnvironmentEntry {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: { readonly fieldRef?: { readonly fieldPath: string } };
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly env: readonly EnvironmentEntry[];
  readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
  readonly resources: {
    readonly requests?: Readonly<Record<string, string | number>>;
    readonly limits?: Readonly<Record<string, string | number>>;
  };
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly startupProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly livenessProbe?: Probe;
}

interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string | number };
}

export interface PodSpec {
  readonly containers: readonly Container[];
  readonly volumes: readonly Readonly<Record<string, unknown>>[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly serviceAccountName?: string;
  readonly automountServiceAccountToken?: boolean;
  readonly terminationGracePeriodSeconds: number;
  readonly hostNetwork?: boolean;
  readonly hostPID?: boolean;
  readonly hostIPC?: boolean;
  readonly nodeSelector?: Readonly<Record<string, string>>;
}

export interface KubernetesObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly rules?: readonly Readonly<Record<string, unknown>>[];
  readonly spec: {
    readonly replicas?: number;
    /** Of a PrometheusRule. */
    readonly groups?: readonly { readonly rules: readonly { readonly alert: string }[] }[];
    readonly type?: string;
    readonly clusterIP?: string;
    readonly serviceName?: string;
    readonly selector?: Readonly<Record<string, string>> & { readonly matchLabels?: Readonly<Record<string, string>> };
    readonly ports?: readonly { readonly name: string; readonly port: number; readonly targetPort: string | number }[];
    readonly template?: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> };
      readonly spec: PodSpec;
    };
  };
}

export interface HelmAnswer {
  readonly ok: boolean;
  readonly output: string;
}

/** Runs helm; no cluster, no configuration of the user. */
export function helm(...args: string[]): HelmAnswer {
  const run = spawnSync(kubernetesTools().helm, args, {
    encoding: "utf8",
    maxBuffer: OUTPUT_BYTES_MAX,
    env: { PATH: process.env["PATH"] ?? "", HOME: "/nonexistent", KUBECONFIG: "/dev/null" },
  });
  return { ok: run.status === 0, output: run.status === 0 ? run.stdout : run.stderr + run.stdout };
}

/** Objects of `helm template moevie CHART ARGS`. Throws helm's message when it refuses. */
export function render(...args: string[]): KubernetesObject[] {
  const rendered = helm("template", "moevie", CHART, ...args);
  if (!rendered.ok) throw new Error(rendered.output);
  const kubectl = spawnSync(
    kubernetesTools().kubectl,
    ["annotate", "--local", "-f", "-", "moevie.test/read=1", "-o", "json"],
    {
      input: rendered.output,
      encoding: "utf8",
      maxBuffer: OUTPUT_BYTES_MAX,
      env: { PATH: process.env["PATH"] ?? "", KUBECONFIG: "/dev/null" },
    },
  );
  if (kubectl.status !== 0) throw new Error(kubectl.stderr);
  return kubectl.stdout
    .trim()
    .split(/(?<=^\})\n(?=\{)/m)
    .map((text) => JSON.parse(text) as KubernetesObject);
}

/** Workloads by kind/name, with their pod's spec. */
export function podsOf(
  objects: readonly KubernetesObject[],
): { readonly name: string; readonly labels: Readonly<Record<string, string>>; readonly spec: PodSpec }[] {
  return objects.flatMap((object) => {
    const template = object.spec?.template;
    return template === undefined
      ? []
      : [{ name: `${object.kind}/${object.metadata.name}`, labels: template.metadata.labels, spec: template.spec }];
  });
}

/** A container by service name. Throws when no pod has it. */
export function containerOf(objects: readonly KubernetesObject[], service: string): Container {
  const found = podsOf(objects)
    .flatMap((pod) => pod.spec.containers)
    .find((container) => container.name === service);
  if (found === undefined) throw new Error(`no container ${service}`);
  return found;
}

/** Plain values of a container's environment. */
export function environmentOf(container: Container): Record<string, string> {
  return Object.fromEntries(
    container.env.map((entry) => [entry.name, entry.value ?? `from:${entry.valueFrom?.fieldRef?.fieldPath}`]),
  );
}
