// Seen from outside: a real Prometheus scrapes a running cluster while it makes clips, and every query of the board finds data.
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { METRICS } from "@moevie/contracts";
import { CliSession, until } from "./cli-session.ts";
import { Prometheus, promtoolCheck, promtoolTest, type Sample } from "./prometheus.ts";

const DEPLOY = fileURLToPath(new URL("../../deploy/", import.meta.url));
const ALERTS = fileURLToPath(new URL("../../helm/moevie/alerts.yaml", import.meta.url));
const SETUP_MS_MAX = 300_000;
/** Until Prometheus has seen what happened. */
const SEEN_MS_MAX = 60_000;
/** Range of rates: long enough to span both clips. */
const RATE_INTERVAL = "2m";

/** Of a layer, more than the model has experts: some have copies, and `serve` starts a controller. */
const SLOTS = 6;
/** Metrics whose labels say what went wrong, or what was moved: nothing to show while nothing does. */
const OF_TROUBLE = new Set([
  "moevie_stage_errors_total",
  "moevie_peer_retries_total",
  "moevie_exchange_retries_total",
  "moevie_controller_refusals_total",
  "moevie_rebalances_total",
  "moevie_rebalance_last_seconds",
  "moevie_rebalance_age_seconds",
]);

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly datasource?: { readonly uid: string };
  readonly fieldConfig?: { readonly defaults: { readonly unit?: string } };
  readonly targets?: readonly { readonly expr: string }[];
}
interface Board {
  readonly uid: string;
  readonly editable: boolean;
  readonly panels: readonly Panel[];
}

const board = JSON.parse(readFileSync(join(DEPLOY, "grafana", "overview.json"), "utf8")) as Board;
const charts = board.panels.filter((panel) => panel.type !== "row");
const queries = charts.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => ({ title: panel.title, expr })));

/** Metric names in a query, histogram suffixes dropped. */
function metricsIn(expr: string): string[] {
  const names = expr.match(/\bmoevie_[a-z0-9_]+/g) ?? [];
  return names.map((name) => name.replace(/_(bucket|sum|count)$/, ""));
}

describe("the board as it lies", () => {
  test("can be imported anywhere: fixed uid, no editing, the datasource a variable", () => {
    expect([board.uid, board.editable]).toEqual(["moevie-overview", false]);
    expect(charts.filter((panel) => panel.datasource?.uid !== "${datasource}").map((panel) => panel.title)).toEqual([]);
    expect(new Set(board.panels.map((panel) => panel.id)).size).toBe(board.panels.length);
  });

  test("every panel says what it shows and in which unit", () => {
    const mute = charts.filter(
      (panel) =>
        (panel.description ?? "") === "" ||
        (panel.fieldConfig?.defaults.unit ?? "") === "" ||
        panel.targets?.length === 0,
    );
    expect(mute.map((panel) => panel.title)).toEqual([]);
  });

  test("rates are over $__rate_interval and quantiles over sums by le", () => {
    expect(queries.filter(({ expr }) => /rate\([^)]*\[(?!\$__rate_interval\])/.test(expr))).toEqual([]);
    expect(queries.filter(({ expr }) => expr.includes("histogram_quantile") && !/sum by \(le/.test(expr))).toEqual([]);
  });

  test("every metric it asks for is in the table, or one of the process metrics", () => {
    const unknown = queries
      .flatMap(({ expr }) => metricsIn(expr))
      .filter((name) => !(name in METRICS) && !/^moevie_(process|nodejs)_/.test(name));
    expect(unknown).toEqual([]);
  });
});

describe("the alerts as they lie", () => {
  const rules = readFileSync(ALERTS, "utf8");
  const names = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name ?? "");

  test("are raised when they should be, and only then", () => {
    expect(promtoolTest(fileURLToPath(new URL("alerts.yaml", import.meta.url)))).toBe("");
  });

  test("each has an entry in the runbook, and the runbook no other", () => {
    const runbook = readFileSync(fileURLToPath(new URL("../../docs/operations/alerts.md", import.meta.url)), "utf8");
    expect([...runbook.matchAll(/^## (\w+)$/gm)].map(([, name]) => name)).toEqual(names);
    for (const name of names) expect(rules).toContain(`docs/operations/alerts.md#${name.toLowerCase()}`);
  });

  test("ask for metrics of the table alone", () => {
    expect(metricsIn(rules).filter((name) => !(name in METRICS))).toEqual([]);
  });
});

describe("the running cluster", () => {
  let session: CliSession;
  let prometheus: Prometheus;
  let grpc = "";

  beforeAll(async () => {
    session = new CliSession();
    const server = session.start(
      "serve",
      "--model",
      await session.tinyBundle(),
      "--grpc-port",
      "0",
      "--http-port",
      "0",
      "--data",
      join(session.folder, "jobs"),
      // With a controller, whose panels are the board's too.
      "--slots",
      String(SLOTS),
      "--json",
    );
    await until(
      () => server.stdout.includes("\n"),
      SETUP_MS_MAX / 2,
      () => `serve is not up:\n${server.stderr}`,
    );
    const said = JSON.parse(server.stdout) as { grpc: string; http: string };
    ({ grpc } = said);
    const folder = join(session.folder, "prometheus");
    mkdirSync(folder);
    const config = readFileSync(join(DEPLOY, "prometheus", "prometheus.yml"), "utf8");
    prometheus = await Prometheus.start(
      folder,
      config
        .replace("127.0.0.1:7901", new URL(said.http).host)
        .replace("scrape_interval: 5s", "scrape_interval: 2s")
        .replace("../../helm/moevie/alerts.yaml", ALERTS),
    );
    // A rate needs a scrape before and one after: the first clip makes the series, the second moves them.
    for (const clip of [1, 2]) {
      const flags = ["--size", "256x256", "--seconds", "0.5", "--steps", "6", "--server", grpc, "--json"];
      const made = await session.run("submit", "a red boat", "--seed", String(clip), ...flags);
      const { name } = JSON.parse(made.stdout) as { name: string };
      expect((await session.run("watch", name, "--server", grpc, "--json")).code).toBe(0);
      await prometheus.reaches("sum(moevie_jobs_finished_total)", clip, SEEN_MS_MAX);
    }
    // Of the placement, over shards and over slots.
    await prometheus.reaches('count(moevie_controller_balancedness_ratio{of="placement"})', 2, SEEN_MS_MAX);
  }, SETUP_MS_MAX);

  afterAll(async () => {
    await prometheus?.close();
    session?.close();
  });

  test("Prometheus accepts the configuration and the gateway is up", async () => {
    expect(promtoolCheck(join(DEPLOY, "prometheus", "prometheus.yml"))).toBe("");
    expect((await prometheus.query('up{job="moevie"}')).map((sample) => sample.value[1])).toEqual(["1"]);
  });

  test("every service shows its metrics through the gateway", async () => {
    const services = (await prometheus.query("count by (service) (moevie_model_loaded == 1)")).map(
      (sample) => sample.metric["service"],
    );
    expect(services.toSorted((a, b) => String(a).localeCompare(String(b)))).toEqual([
      "controller",
      "decoder",
      "expert-shard-0",
      "expert-shard-1",
      "gateway",
      "router",
      "scheduler",
      "text-encoder",
    ]);
  });

  test.each(queries)("$title: $expr finds data", async ({ expr }) => {
    const found: Sample[] = await prometheus.query(
      expr.replaceAll("$__rate_interval", RATE_INTERVAL).replaceAll("$service", ".*"),
    );
    expect(found.length).toBeGreaterThan(0);
    expect(found.some((sample) => Number.isFinite(Number(sample.value[1])))).toBe(true);
  });

  test("every metric of the table is there, but for those that only trouble brings, or a move of experts", async () => {
    const found = await prometheus.query('count by (__name__) ({__name__=~"moevie_.*"})');
    const names = new Set(found.map(({ metric }) => (metric["__name__"] ?? "").replace(/_(bucket|sum|count)$/, "")));
    const missing = Object.keys(METRICS).filter((name) => !names.has(name));
    const unexpected = missing.filter((name) => !OF_TROUBLE.has(name));
    expect(unexpected).toEqual([]);
  });

  test("a job that lapses in the queue is counted once, by whichever process saw it, and raises the alert", async () => {
    const submit = async (...flags: string[]): Promise<string> => {
      const made = await session.run("submit", "a red boat", ...flags, "--server", grpc, "--json");
      if (made.code !== 0) throw new Error(made.stderr);
      return (JSON.parse(made.stdout) as { name: string }).name;
    };
    const long = ["--size", "256x256", "--seconds", "30", "--steps", "100"];
    const before = [await submit(...long), await submit(...long)];
    const late = await submit("--deadline", "1");
    await prometheus.reaches('sum(moevie_jobs_lapsed_total{state="queued"})', 1, SEEN_MS_MAX);
    expect(await prometheus.query("sum(moevie_jobs_lapsed_total)")).toMatchObject([
      { value: [expect.anything(), "1"] },
    ]);
    await prometheus.reaches('sum(moevie_jobs_finished_total{outcome="failed",reason="DEADLINE"})', 1, SEEN_MS_MAX);
    await prometheus.reaches('count(ALERTS{alertname="MoevieJobsLapse",alertstate="firing"})', 1, SEEN_MS_MAX);
    for (const name of before) expect((await session.run("cancel", name, "--server", grpc)).code).toBe(0);
    expect((await session.run("watch", late, "--server", grpc, "--json")).stdout).toContain("DEADLINE");
  });

  test("what a finished clip must move has moved", async () => {
    for (const name of [
      "moevie_jobs_finished_total",
      "moevie_denoise_steps_total",
      "moevie_frames_generated_total",
      "moevie_expert_tokens_total",
      "moevie_exchange_bytes_total",
      "moevie_rpc_requests_total",
    ]) {
      const [sample] = await prometheus.query(`sum(${name})`);
      expect.soft(Number(sample?.value[1]), name).toBeGreaterThan(0);
    }
  });
});
