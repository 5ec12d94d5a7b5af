// Metrics by the table in contracts: a name that is not there does not compile. One registry a process.
import { METRICS, limit, type MetricName } from "@moevie/contracts";
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";

type Labels = Readonly<Record<string, string>>;

/** Counters, gauges and histograms of one process. Unknown labels throw: they are programmer errors. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #made = new Map<MetricName, Counter | Gauge | Histogram>();
  /** By name and labels. */
  readonly #series = new Map<string, { readonly name: MetricName; readonly labels: Labels }>();

  constructor(service: string) {
    this.#registry.setDefaultLabels({ service });
    collectDefaultMetrics({ register: this.#registry, prefix: "moevie_" });
  }

  /** Adds to a counter. */
  add(name: MetricName, labels: Labels = {}, amount = 1): void {
    const metric = this.#metric(name, labels);
    if (!(metric instanceof Counter)) throw new Error(`${name} is no counter`);
    metric.inc(labels, amount);
  }

  /** Sets a gauge. */
  set(name: MetricName, labels: Labels, value: number): void {
    const metric = this.#metric(name, labels);
    if (!(metric instanceof Gauge)) throw new Error(`${name} is no gauge`);
    metric.set(labels, value);
  }

  /** Adds to a gauge (negative to take away). */
  shift(name: MetricName, labels: Labels, amount: number): void {
    const metric = this.#metric(name, labels);
    if (!(metric instanceof Gauge)) throw new Error(`${name} is no gauge`);
    metric.inc(labels, amount);
  }

  /** Observes a value in the histogram's unit (seconds). */
  observe(name: MetricName, labels: Labels, value: number): void {
    const metric = this.#metric(name, labels);
    if (!(metric instanceof Histogram)) throw new Error(`${name} is no histogram`);
    metric.observe(labels, value);
  }

  /** Makes series exist at zero, so that ratios and absent() work before the first event. */
  declare(name: MetricName, labelSets: readonly Labels[] = [{}]): void {
    for (const labels of labelSets) {
      const metric = this.#metric(name, labels);
      if (metric instanceof Counter) metric.inc(labels, 0);
      else if (metric instanceof Gauge) metric.inc(labels, 0);
      else metric.zero(labels);
    }
  }

  /** Takes away all series with this label: what it named is gone for good. */
  forget(label: string, value: string): void {
    for (const [key, { name, labels }] of this.#series) {
      if (labels[label] !== value) continue;
      this.#made.get(name)?.remove(labels);
      this.#series.delete(key);
    }
  }

  /** The exposition in Prometheus text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  #metric(name: MetricName, labels: Labels): Counter | Gauge | Histogram {
    const key = name + JSON.stringify(labels);
    if (!this.#series.has(key)) {
      if (this.#series.size >= limit("metricSeriesMax"))
        throw new Error(`more than ${limit("metricSeriesMax")} series: ${name} has an unbounded label`);
      this.#series.set(key, { name, labels });
    }
    let metric = this.#made.get(name);
    if (metric === undefined) {
      const spec = METRICS[name];
      const common = { name, help: spec.help, labelNames: [...spec.labels], registers: [this.#registry] };
      if (spec.kind === "counter") metric = new Counter(common);
      else if (spec.kind === "gauge") metric = new Gauge(common);
      else metric = new Histogram({ ...common, buckets: [...spec.buckets] });
      this.#made.set(name, metric);
    }
    return metric;
  }
}
