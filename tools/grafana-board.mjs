// The overview board as data: panels in the order a prompt meets the services. tools/generate-docs.mjs writes it to
// deploy/grafana/overview.json; a test runs each of its queries against a live cluster.

import { JOB_PANELS } from "./grafana-jobs.mjs";
import { mean, q, quantile, zeroSafe } from "./grafana-queries.mjs";

const DATASOURCE = { type: "prometheus", uid: "${datasource}" };
const PANELS_PER_ROW = 3;
const [WIDTH, HEIGHT] = [24 / PANELS_PER_ROW, 8];

const ROWS = [
  { title: "Jobs", panels: JOB_PANELS },
  {
    title: "Stages and steps",
    panels: [
      [
        "Time of a stage",
        "s",
        "Mean time of each stage of a job.",
        [q(mean("moevie_stage_duration_seconds", "stage"), "{{stage}}")],
      ],
      [
        "Time of a step",
        "s",
        "One denoising step: both branches, guidance and sampler.",
        [
          q(quantile(0.5, "moevie_denoise_step_duration_seconds"), "p50"),
          q(quantile(0.95, "moevie_denoise_step_duration_seconds"), "p95"),
        ],
      ],
      [
        "Steps",
        "ops",
        "Denoising steps done.",
        [q("sum(rate(moevie_denoise_steps_total[$__rate_interval]))", "steps")],
      ],
    ],
  },
  {
    title: "Router and experts",
    panels: [
      [
        "Denoise calls in flight",
        "short",
        "At each router.",
        [q("sum by (service) (moevie_router_queue_depth)", "{{service}}")],
      ],
      [
        "Where the router's time goes",
        "percentunit",
        "Share of a second spent in trunk graphs and waiting for shards, summed over calls.",
        [
          q("sum(rate(moevie_router_trunk_seconds_total[$__rate_interval]))", "trunk"),
          q("sum(rate(moevie_router_exchange_wait_seconds_total[$__rate_interval]))", "waiting for shards"),
        ],
      ],
      [
        "Shards connected",
        "short",
        "Live streams from routers to shards; a missing one stops the experts it alone holds.",
        [q("sum by (shard) (moevie_expert_shard_ready)", "shard {{shard}}")],
      ],
      [
        "Time of an exchange",
        "s",
        "Dispatch to answer, as the router sees it.",
        [
          q(quantile(0.5, "moevie_exchange_duration_seconds", ["shard"]), "p50 shard {{shard}}"),
          q(quantile(0.95, "moevie_exchange_duration_seconds", ["shard"]), "p95 shard {{shard}}"),
        ],
      ],
      [
        "Compute in an exchange",
        "s",
        "The shard's own part of an exchange.",
        [q(quantile(0.95, "moevie_expert_call_duration_seconds", ["shard"]), "p95 shard {{shard}}")],
      ],
      [
        "Bytes exchanged",
        "Bps",
        "Rows and frames between routers and shards, by direction.",
        [q("sum by (direction) (rate(moevie_exchange_bytes_total[$__rate_interval]))", "{{direction}}")],
      ],
      [
        "What rows go by",
        "short",
        "Links from routers to shards by path: TCP, a Unix socket, or a segment of memory that both share.",
        [q("sum by (path) (moevie_exchange_path)", "{{path}}")],
      ],
      [
        "Rows computed",
        "short",
        "Rows per second of each shard's experts.",
        [q("sum by (shard) (rate(moevie_expert_tokens_total[$__rate_interval]))", "shard {{shard}}")],
      ],
      [
        "Imbalance",
        "short",
        "Largest over mean rows per shard of the last call; 1 is even.",
        [q("max by (service) (moevie_expert_imbalance_ratio)", "{{service}}")],
      ],
      [
        "Balancedness",
        "short",
        "Mean over largest load under the loads of late, as the controller that leads sees it: over shards and over slots, of the placement and of its last plan; 1 is even.",
        [q("max by (of, over) (moevie_controller_balancedness_ratio)", "{{of}}, over {{over}}")],
      ],
      [
        "Rows sent again",
        "ops",
        "Exchanges repeated on another holder.",
        [q(zeroSafe("sum by (shard) (rate(moevie_exchange_retries_total[$__rate_interval]))"), "shard {{shard}}")],
      ],
      [
        "Hedges",
        "ops",
        "Rows sent to another holder too because a shard was late: won, the other answered first, or lost.",
        [
          q(
            zeroSafe("sum by (shard, outcome) (rate(moevie_exchange_hedges_total[$__rate_interval]))"),
            "shard {{shard}} {{outcome}}",
          ),
        ],
      ],
      [
        "Experts loaded by donors",
        "ops",
        "Times a shard was asked to load experts that no connected shard held: done, or refused.",
        [q(zeroSafe("sum by (outcome) (rate(moevie_donor_loads_total[$__rate_interval]))"), "{{outcome}}")],
      ],
      [
        "Shards without room",
        "short",
        "Shards that refused experts a controller wanted there, and are planned with less; moevie experts says which and why. Zero is good.",
        [q(zeroSafe("max(moevie_controller_bounded_shards)"), "shards")],
      ],
      [
        "Parts of an exchange",
        "percentunit",
        "Share of a second in each part, summed over exchanges: waiting for credit, rows on their way up, queued at the shard, computing there, on their way down.",
        [q("sum by (part) (rate(moevie_exchange_seconds_total[$__rate_interval]))", "{{part}}")],
      ],
      [
        "Waiting for shards that was hidden",
        "percentunit",
        "Of the time evaluations wait for shards, the part during which the trunk computed for another one.",
        [
          q(
            "sum(rate(moevie_router_exchange_hidden_seconds_total[$__rate_interval])) / sum(rate(moevie_router_exchange_wait_seconds_total[$__rate_interval]))",
            "hidden",
          ),
        ],
      ],
      [
        "Evaluations by company",
        "ops",
        "Alone, or in one batch with other jobs' or with the job's other branch.",
        [q("sum by (company) (rate(moevie_router_evaluations_total[$__rate_interval]))", "{{company}}")],
      ],
    ],
  },
  {
    title: "API and processes",
    panels: [
      [
        "RPCs",
        "ops",
        "Answered calls of the gateway by code.",
        [q('sum by (code) (rate(moevie_rpc_requests_total{service="gateway"}[$__rate_interval]))', "{{code}}")],
      ],
      [
        "Time of an RPC",
        "s",
        "p95 by method at the gateway; streams count from first to last message.",
        [
          q(
            'histogram_quantile(0.95, sum by (le, method) (rate(moevie_rpc_duration_seconds_bucket{service="gateway"}[$__rate_interval])))',
            "{{method}}",
          ),
        ],
      ],
      [
        "RPCs in flight",
        "short",
        "Calls being answered.",
        [q('sum by (service) (moevie_rpc_in_flight{service=~"$service"})', "{{service}}")],
      ],
      [
        "Model loaded",
        "short",
        "1 once the model ran; a service that restarts drops out.",
        [q('max by (service) (moevie_model_loaded{service=~"$service"})', "{{service}}")],
      ],
      [
        "Draining",
        "short",
        "1 while a service ends.",
        [q('max by (service) (moevie_draining{service=~"$service"})', "{{service}}")],
      ],
      [
        "Versions",
        "short",
        "Processes by build; more than one version for long is a stuck rollout.",
        [q('count by (version) (moevie_build_info{service=~"$service"})', "{{version}}")],
      ],
      [
        "Memory",
        "bytes",
        "Resident memory of each process.",
        [q('max by (service) (moevie_process_resident_memory_bytes{service=~"$service"})', "{{service}}")],
      ],
      [
        "Processor",
        "percentunit",
        "Cores in use by each process.",
        [
          q(
            'sum by (service) (rate(moevie_process_cpu_seconds_total{service=~"$service"}[$__rate_interval]))',
            "{{service}}",
          ),
        ],
      ],
      [
        "Event loop lag",
        "s",
        "p99; high means health and streams answer late.",
        [q('max by (service) (moevie_nodejs_eventloop_lag_p99_seconds{service=~"$service"})', "{{service}}")],
      ],
    ],
  },
];

function timeseries([title, unit, description, queries], id, gridPos) {
  return {
    id,
    type: "timeseries",
    title,
    description,
    datasource: DATASOURCE,
    gridPos,
    fieldConfig: { defaults: { unit, min: 0, custom: { fillOpacity: 8, showPoints: "never" } }, overrides: [] },
    options: { legend: { displayMode: "list", placement: "bottom" }, tooltip: { mode: "multi", sort: "desc" } },
    targets: queries.map(({ expr, legend }, index) => ({
      refId: String.fromCharCode(65 + index),
      datasource: DATASOURCE,
      expr,
      legendFormat: legend,
    })),
  };
}

function panels() {
  const out = [];
  let y = 0;
  for (const row of ROWS) {
    out.push({
      id: out.length + 1,
      type: "row",
      title: row.title,
      collapsed: false,
      gridPos: { h: 1, w: 24, x: 0, y },
      panels: [],
    });
    y += 1;
    row.panels.forEach((panel, index) => {
      const gridPos = {
        h: HEIGHT,
        w: WIDTH,
        x: (index % PANELS_PER_ROW) * WIDTH,
        y: y + Math.floor(index / PANELS_PER_ROW) * HEIGHT,
      };
      out.push(timeseries(panel, out.length + 1, gridPos));
    });
    y += Math.ceil(row.panels.length / PANELS_PER_ROW) * HEIGHT;
  }
  return out;
}

/** The board as Grafana imports it. */
export function overviewBoard() {
  const service = {
    name: "service",
    label: "Service",
    type: "query",
    datasource: DATASOURCE,
    query: { query: "label_values(moevie_build_info, service)", refId: "service" },
    definition: "label_values(moevie_build_info, service)",
    refresh: 2,
    multi: true,
    includeAll: true,
    allValue: ".*",
    current: { text: "All", value: "$__all" },
    sort: 1,
  };
  return {
    uid: "moevie-overview",
    title: "moevie: overview",
    tags: ["moevie"],
    schemaVersion: 39,
    version: 1,
    editable: false,
    graphTooltip: 1,
    refresh: "10s",
    time: { from: "now-1h", to: "now" },
    timezone: "browser",
    templating: {
      list: [
        { name: "datasource", label: "Prometheus", type: "datasource", query: "prometheus", current: {} },
        service,
      ],
    },
    annotations: { list: [] },
    links: [],
    panels: panels(),
  };
}
