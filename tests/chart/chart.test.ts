// The chart, rendered by the real Helm: what it makes, what it refuses, and that every service accepts its settings.
import { describe, expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { join } from "node:path";
import { ENVIRONMENT, LIMITS, SERVICES } from "@moevie/contracts";
import { ROOT } from "./kubernetes-tools.ts";
import { CHART, containerOf, environmentOf, helm, podsOf, render, type KubernetesObject } from "./rendered-chart.ts";

const CPU = join(CHART, "values-cpu.yaml");
const VARIANTS: readonly (readonly string[])[] = [
  [],
  ["--values", CPU],
  [
    "--set",
    "expertShard.replicas=4,expertShard.runtimeClassName=nvidia,router.replicas=2,router.gpus=1,router.device=cuda:0",
  ],
  [
    "--set",
    "tenants.weights.film=3,tenants.weights.ads=1,tenants.queuedMax=100,tenants.runningMax=2,data.backupMinutes=0,data.existingClaim=clips,networkPolicy.enabled=false,tracing.endpoint=http://collector:4318,log.prompts=true,reflection=false",
  ],
  [
    "--set",
    "serviceMonitor.enabled=true,serviceMonitor.labels.release=prometheus,prometheusRule.enabled=true,prometheusRule.labels.release=prometheus,expertShard.nodeSelector.pool=gpu,image.registry=localhost:5000,image.tag=1.2.3,image.pullSecrets={pull}",
  ],
  [
    "--set",
    "nats.servers=tls://nats.messaging:4222,nats.replicas=3,nats.credentialsSecret=nats,nats.tlsSecret=nats-tls,nats.clientCertificate=true,control.replicas=3,checkpoints.place=s3,checkpoints.s3.endpoint=http://s3.storage:9000,checkpoints.s3.bucket=clips,checkpoints.s3.prefix=a/b,checkpoints.s3.credentialsSecret=bucket",
  ],
  [
    "--set",
    "controller.enabled=true,controller.replicas=2,controller.slots=20,expertShard.replicas=3,expertShard.spreadOver=2,controller.apiPorts={6443}",
  ],
];
const NATS = VARIANTS.at(-2)!;
const CONTROLLED = VARIANTS.at(-1)!;

describe("helm", () => {
  test.each(VARIANTS.map((args) => ({ args })))("lints $args without a warning", ({ args }) => {
    const lint = helm("lint", "--strict", CHART, ...args);
    expect(lint.output).toContain("0 chart(s) failed");
    expect(lint.output).not.toMatch(/\[(WARNING|ERROR)\]/);
  });

  test.each([
    ["an unknown value", "gateway.replica=2", /replica/],
    ["an unknown value at the top", "ingress.enabled=true", /ingress/],
    ["zero shards", "expertShard.replicas=0", /expertShard/],
    ["a device that does not exist", "router.device=gpu", /device/],
    ["a wire type the exchange lacks", "router.wireType=f8", /wireType/],
    ["a grace shorter than the drain", "terminationGraceSeconds=10", /terminationGraceSeconds/],
    ["a bundle outside the claim", "model.folder=../secrets", /folder/],
    ["a sample ratio above one", "tracing.sampleRatio=2", /sampleRatio/],
    ["a level the log lacks", "log.level=verbose", /level/],
    ["GPUs that would lie idle", "expertShard.device=cpu", /GPUs would lie idle/],
    ["a tenant without a share", "tenants.weights.film=0", /weights/],
    ["a tenant no caller can be", "tenants.weights._=1", /weights/],
    ["pods that would share SQLite", "control.replicas=2", /nats\.servers is empty/],
    ["a certificate without its secret", "nats.clientCertificate=true", /nats\.tlsSecret is empty/],
    ["a place without NATS", "checkpoints.place=s3", /nats\.servers is empty/],
    ["a folder without its claim", "nats.servers=nats://nats:4222,checkpoints.place=file", /existingClaim is empty/],
    ["a bucket without its key", "nats.servers=nats://nats:4222,checkpoints.place=s3", /credentialsSecret is empty/],
    ["credentials in an address", "nats.servers=nats://me:secret@nats:4222", /servers/],
    ["a spread that nobody fills", "expertShard.spreadOver=1", /controller\.enabled is false/],
    [
      "a spread over shards that are not there",
      "controller.enabled=true,expertShard.spreadOver=3",
      /spreadOver is 3 but expertShard\.replicas is 2/,
    ],
    ["a port that is none", "controller.apiPorts={0}", /apiPorts/],
    ["a GPU device without a GPU", "decoder.device=cuda:0", /decoder\.gpus is 0/],
  ])("refuses %s and names it", (_what, setting, message) => {
    const answer = helm("template", "moevie", CHART, "--set", setting);
    expect(answer.ok).toBe(false);
    expect(answer.output).toMatch(message);
  });

  test("notes say how to reach the API and what is not there yet", () => {
    const notes = helm("install", "moevie", CHART, "--dry-run=client", "--namespace", "clips").output;
    expect(notes).toContain("moevie-gateway.clips:7900");
    expect(notes).toContain("no authentication");
    expect(notes).toContain("SQLite");
  });
});

describe.each(VARIANTS.map((args) => ({ args })))("every pod of $args", ({ args }) => {
  const pods = podsOf(render(...args));

  test("passes the restricted pod security standard; none but a controller gets a token", () => {
    for (const { name, spec } of pods) {
      expect
        .soft(spec.securityContext, name)
        .toMatchObject({ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } });
      expect.soft([spec.hostNetwork, spec.hostPID, spec.hostIPC], name).toEqual([undefined, undefined, undefined]);
      const controls = name === "Deployment/moevie-controller";
      expect.soft(spec.automountServiceAccountToken, name).toBe(controls);
      expect.soft(spec.serviceAccountName, name).toBe(controls ? "moevie-controller" : "moevie");
      expect
        .soft(
          spec.volumes.every((volume) =>
            ["persistentVolumeClaim", "emptyDir", "secret"].some((kind) => kind in volume),
          ),
          name,
        )
        .toBe(true);
      for (const container of spec.containers) {
        expect.soft(container.securityContext, `${name}/${container.name}`).toMatchObject({
          allowPrivilegeEscalation: false,
          privileged: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        });
      }
    }
  });

  test("has /tmp to write to and the model to read from only", () => {
    for (const container of pods.flatMap((pod) => pod.spec.containers)) {
      expect.soft(container.volumeMounts).toContainEqual({ name: "tmp", mountPath: "/tmp" });
      expect.soft(container.volumeMounts).toContainEqual({ name: "model", mountPath: "/models", readOnly: true });
    }
  });

  test("is probed on its own HTTP port, and is live before it is ready", () => {
    for (const container of pods.flatMap((pod) => pod.spec.containers)) {
      const ports = container.ports.map((port) => port.name);
      for (const probe of [container.startupProbe, container.readinessProbe, container.livenessProbe])
        expect.soft(ports).toContain(probe?.httpGet.port);
      expect
        .soft([
          container.startupProbe?.httpGet.path,
          container.readinessProbe?.httpGet.path,
          container.livenessProbe?.httpGet.path,
        ])
        .toEqual(["/livez", "/readyz", "/livez"]);
    }
  });

  test("is given more time to end than a service takes to drain", () => {
    for (const { name, spec } of pods)
      expect.soft(spec.terminationGracePeriodSeconds * 1000, name).toBeGreaterThan(LIMITS.drainMsMax.value + 5000);
  });
});

describe("the cluster the chart makes", () => {
  const objects = render();
  const services = objects.filter((object) => object.kind === "Service");

  test("has every service once, each with its own image", () => {
    const containers = podsOf(objects).flatMap((pod) => pod.spec.containers);
    expect(containers.map((container) => container.name).sort()).toEqual([...SERVICES].sort());
    // By default the shards run on GPUs.
    const expected = containers.map(({ name }) => `moevie/${name}${name === "expert-shard" ? "-cuda" : ""}:0.1.0`);
    expect(containers.map(({ image }) => image)).toEqual(expected);
  });

  test("reaches nothing from outside: ClusterIP services, no Ingress, no node or host port", () => {
    expect(services.filter((service) => service.spec.type !== "ClusterIP")).toEqual([]);
    expect(objects.filter((object) => /Ingress|Gateway|Route/.test(object.kind))).toEqual([]);
  });

  test("names every replica of what a scheduler calls, so that it spreads its calls over them", () => {
    for (const name of ["text-encoder", "router", "decoder"]) {
      const service = services.find((one) => one.metadata.name === `moevie-${name}`);
      expect.soft(service?.spec.clusterIP, name).toBe("None");
    }
  });

  test("every Service selects exactly one workload and targets ports it has", () => {
    const pods = podsOf(objects);
    for (const service of services) {
      const chosen = pods.filter((pod) =>
        Object.entries(service.spec.selector ?? {}).every(([label, value]) => pod.labels[label] === value),
      );
      const ports = chosen.flatMap((pod) =>
        pod.spec.containers.flatMap((container) => container.ports.map((port) => port.name)),
      );
      expect.soft(chosen.length, service.metadata.name).toBe(1);
      for (const port of service.spec.ports ?? []) expect.soft(ports, service.metadata.name).toContain(port.targetPort);
    }
  });

  test("gives each shard one GPU, its number and a name the router calls", () => {
    const scaled = render("--set", "expertShard.replicas=3");
    const set = scaled.find(
      (object) => object.kind === "StatefulSet" && object.metadata.name === "moevie-expert-shard",
    );
    const shard = containerOf(scaled, "expert-shard");
    expect(set?.spec.replicas).toBe(3);
    expect(shard.resources.limits?.["nvidia.com/gpu"]).toBe(1);
    expect(shard.resources.requests?.["nvidia.com/gpu"]).toBe(1);
    expect(environmentOf(shard)).toMatchObject({
      MOEVIE_SHARD_COUNT: "3",
      MOEVIE_SHARD_INDEX: "from:metadata.labels['apps.kubernetes.io/pod-index']",
    });
    const headless = scaled.find(
      (object) => object.kind === "Service" && object.metadata.name === set?.spec.serviceName,
    );
    expect(headless?.spec.clusterIP).toBe("None");
    expect(environmentOf(containerOf(scaled, "router"))["MOEVIE_SHARDS"]?.split(",")).toEqual(
      [0, 1, 2].map((index) => `moevie-expert-shard-${index}.moevie-expert-shard:7900`),
    );
  });

  test("asks for no GPU with values-cpu.yaml", () => {
    expect(JSON.stringify(render("--values", CPU))).not.toContain("nvidia.com/gpu");
  });

  test("the scheduler finds its peers under names and ports that exist", () => {
    const environment = environmentOf(containerOf(objects, "scheduler"));
    const names = services.flatMap((service) =>
      (service.spec.ports ?? []).map((port) => `${service.metadata.name}:${port.port}`),
    );
    for (const peer of ["MOEVIE_TEXT_ENCODER", "MOEVIE_ROUTER", "MOEVIE_DECODER"])
      expect.soft(names).toContain(environment[peer]);
  });

  test("keeps jobs and clips on one volume that gateway and scheduler share", () => {
    const pod = podsOf(objects).find((each) => each.spec.containers.some((container) => container.name === "gateway"));
    expect(pod?.spec.containers.map((container) => container.name)).toEqual(["gateway", "scheduler"]);
    for (const service of ["gateway", "scheduler"]) {
      expect.soft(containerOf(objects, service).volumeMounts).toContainEqual({ name: "data", mountPath: "/data" });
      expect.soft(environmentOf(containerOf(objects, service))["MOEVIE_DATA"]).toBe("/data");
    }
  });
});

describe("with NATS", () => {
  const objects = render(...NATS);

  test("gateway and scheduler are as many as asked for and keep nothing themselves", () => {
    const control = objects.find((object) => object.metadata.name === "moevie-control");
    expect(control).toMatchObject({ spec: { replicas: 3, podManagementPolicy: "Parallel" } });
    expect(control?.spec).not.toHaveProperty("volumeClaimTemplates");
    for (const service of ["gateway", "scheduler"]) {
      const environment = environmentOf(containerOf(objects, service));
      expect(environment).not.toHaveProperty("MOEVIE_DATA");
      expect(environment).toMatchObject({
        MOEVIE_NATS: "tls://nats.messaging:4222",
        MOEVIE_NATS_REPLICAS: "3",
        MOEVIE_NATS_CREDENTIALS_FILE: "/etc/moevie/nats/nats.creds",
        MOEVIE_NATS_TLS_KEY_FILE: "/etc/moevie/nats-tls/tls.key",
        MOEVIE_CHECKPOINTS: "s3://clips/a/b",
        MOEVIE_CHECKPOINTS_MIB_MIN: "64",
        MOEVIE_S3_REGION: "us-east-1",
      });
      const { env } = containerOf(objects, service);
      const secret = env.find(({ name }) => name === "MOEVIE_S3_SECRET_KEY");
      expect(secret).toMatchObject({ valueFrom: { secretKeyRef: { name: "bucket", key: "secretKey" } } });
      const mounts = containerOf(objects, service).volumeMounts?.map(({ name }) => name);
      expect(mounts).toEqual(expect.arrayContaining(["nats-credentials", "nats-tls"]));
      expect(mounts).not.toContain("data");
    }
  });
});

test("a folder for large checkpoints is the claim named, mounted where the setting says", () => {
  const claim = "checkpoints.place=file,checkpoints.existingClaim=shared,checkpoints.mibMin=0";
  const objects = render("--set", `nats.servers=nats://nats:4222,${claim}`);
  const control = objects.find((object) => object.metadata.name === "moevie-control");
  expect(JSON.stringify(control)).toContain('{"name":"checkpoints","persistentVolumeClaim":{"claimName":"shared"}}');
  for (const service of ["gateway", "scheduler"]) {
    const container = containerOf(objects, service);
    expect(environmentOf(container)).toMatchObject({ MOEVIE_CHECKPOINTS: "file:///checkpoints/default.moevie" });
    expect(container.volumeMounts).toContainEqual({ name: "checkpoints", mountPath: "/checkpoints" });
  }
});

test("the alerts are a PrometheusRule, word for word, that a Prometheus selects by its labels", () => {
  const rules = render("--set", "prometheusRule.enabled=true,prometheusRule.labels.release=main").find(
    ({ kind }) => kind === "PrometheusRule",
  );
  expect(rules?.metadata.labels).toMatchObject({ release: "main" });
  const written = readFileSync(join(CHART, "alerts.yaml"), "utf8");
  const names = [...written.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  expect(names.length).toBeGreaterThan(0);
  expect(rules?.spec.groups?.flatMap((group) => group.rules.map(({ alert }) => alert))).toEqual(names);
  expect(JSON.stringify(rules)).toContain("while they were {{ $labels.state }}.");
});

describe("with a controller", () => {
  const objects = render(...CONTROLLED);
  const named = (kind: string, name: string): KubernetesObject | undefined =>
    objects.find((object) => object.kind === kind && object.metadata.name === name);

  test("its account may read and write one Lease and one ConfigMap, which are there and empty, and nothing else", () => {
    const role = named("Role", "moevie-controller");
    expect(role?.rules).toEqual([
      {
        apiGroups: ["coordination.k8s.io"],
        resources: ["leases"],
        resourceNames: ["moevie-controller"],
        verbs: ["get", "update"],
      },
      {
        apiGroups: [""],
        resources: ["configmaps"],
        resourceNames: ["moevie-controller-placement"],
        verbs: ["get", "update"],
      },
    ]);
    expect(named("Lease", "moevie-controller")?.spec).toBeUndefined();
    expect(named("ConfigMap", "moevie-controller-placement")).not.toHaveProperty("data");
    expect(named("RoleBinding", "moevie-controller")).toMatchObject({
      roleRef: { kind: "Role", name: "moevie-controller" },
      subjects: [{ kind: "ServiceAccount", name: "moevie-controller", namespace: "default" }],
    });
    expect(objects.filter(({ kind }) => kind.startsWith("ClusterRole"))).toEqual([]);
    expect(environmentOf(containerOf(objects, "controller"))["MOEVIE_KUBERNETES_LEASE"]).toBe(
      "default/moevie-controller",
    );
  });

  test("its pods reach names, the release and the Kubernetes API alone", () => {
    expect(named("NetworkPolicy", "moevie-controller")?.spec).toMatchObject({
      podSelector: { matchLabels: { "app.kubernetes.io/component": "controller" } },
      policyTypes: ["Egress"],
      egress: [
        { to: [{ podSelector: { matchLabels: { "app.kubernetes.io/instance": "moevie" } } }] },
        {
          ports: [
            { port: 53, protocol: "UDP" },
            { port: 53, protocol: "TCP" },
            { port: 6443, protocol: "TCP" },
          ],
        },
      ],
    });
  });

  test("more shards change nothing of the pods that run: not the shards', not the routers', not its own", () => {
    const more = render(...CONTROLLED, "--set", "expertShard.replicas=4");
    expect(podsOf(more)).toEqual(podsOf(objects));
    expect(environmentOf(containerOf(more, "expert-shard"))["MOEVIE_SHARD_COUNT"]).toBe("2");
    const row = "moevie-expert-shard-{0-1023}.moevie-expert-shard:7900";
    for (const service of ["router", "controller"])
      expect(environmentOf(containerOf(more, service))["MOEVIE_SHARDS"]).toBe(row);
  });

  test("a shard that ends has time for its experts to go elsewhere, and for its drain after that", () => {
    const shards = podsOf(objects).find(({ name }) => name === "StatefulSet/moevie-expert-shard");
    const leaveMs = Number(environmentOf(containerOf(objects, "expert-shard"))["MOEVIE_LEAVE_MS"]);
    expect(leaveMs).toBe(15_000);
    const grace = (shards?.spec.terminationGracePeriodSeconds ?? 0) * 1000;
    expect(grace - leaveMs).toBeGreaterThanOrEqual(LIMITS.drainMsMax.value + 5000);
    expect(environmentOf(containerOf(render(), "expert-shard"))).not.toHaveProperty("MOEVIE_LEAVE_MS");
  });

  test("its metrics have a Service, and Prometheus is told of it as of the others", () => {
    expect(named("Service", "moevie-controller")?.spec).toMatchObject({
      clusterIP: "None",
      selector: { "app.kubernetes.io/component": "controller" },
      ports: [{ name: "http", port: 7901, targetPort: "http" }],
    });
  });
});

describe("settings", () => {
  const given = { SQLite: ["--set", "tracing.endpoint=http://collector:4318"], NATS, controlled: CONTROLLED } as const;
  const cases = [
    ...SERVICES.flatMap((service) => (["SQLite", "NATS"] as const).map((store) => ({ service, store }))),
    ...(["controller", "router", "expert-shard"] as const).map((service) => ({
      service,
      store: "controlled" as const,
    })),
  ];

  test.each(cases)("$service accepts the environment the chart gives it with $store", async ({ service, store }) => {
    const container = containerOf(render(...given[store]), service);
    const environment = {
      ...environmentOf(container),
      ...(service === "expert-shard" ? { MOEVIE_SHARD_INDEX: "1" } : {}),
    };
    expect(Object.keys(environment).filter((name) => !(name in ENVIRONMENT))).toEqual([]);
    const module = (await import(pathToFileURL(join(ROOT, "packages", service, "src", "config.ts")).href)) as Readonly<
      Record<string, unknown>
    >;
    const readers = Object.values(module).filter((value) => typeof value === "function") as ((
      environment: object,
    ) => object)[];
    expect(readers.length).toBeGreaterThan(0);
    for (const read of readers) expect(read(environment)).toBeTypeOf("object");
  });
});
