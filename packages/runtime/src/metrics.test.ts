// Metrics: zero before the first event, the table's labels only, and a bound on series.
import { describe, expect, it } from "vitest";
import { limit } from "@moevie/contracts";
import { Metrics } from "./metrics.ts";

describe("Metrics", () => {
  it("are there at zero once declared, and move by what they are told", async () => {
    const metrics = new Metrics("test");
    metrics.declare("moevie_denoise_steps_total");
    expect(await metrics.text()).toContain('moevie_denoise_steps_total{service="test"} 0');
    metrics.add("moevie_denoise_steps_total", {}, 3);
    metrics.shift("moevie_rpc_in_flight", { rpc_service: "s" }, 2);
    metrics.shift("moevie_rpc_in_flight", { rpc_service: "s" }, -1);
    metrics.observe("moevie_denoise_step_duration_seconds", {}, 0.05);
    const text = await metrics.text();
    expect(text).toContain('moevie_denoise_steps_total{service="test"} 3');
    expect(text).toContain('moevie_rpc_in_flight{rpc_service="s",service="test"} 1');
    expect(text).toContain('moevie_denoise_step_duration_seconds_bucket{le="0.05",service="test"} 1');
  });

  it("refuse labels outside the table and the wrong kind of call", () => {
    const metrics = new Metrics("test");
    expect(() => metrics.add("moevie_denoise_steps_total", { job: "1" })).toThrow();
    expect(() => metrics.set("moevie_denoise_steps_total", {}, 1)).toThrow("is no gauge");
    expect(() => metrics.observe("moevie_denoise_steps_total", {}, 1)).toThrow("is no histogram");
    expect(() => metrics.add("moevie_draining")).toThrow("is no counter");
  });

  it("stop a label that grows without bound", () => {
    const metrics = new Metrics("test");
    const grow = (): void => {
      for (let at = 0; at <= limit("metricSeriesMax"); at++)
        metrics.add("moevie_jobs_finished_total", { outcome: "failed", reason: `${at}` });
    };
    expect(grow).toThrow(/moevie_jobs_finished_total has an unbounded label/);
  });

  it("forget what a label named, of every kind, and count anew when it comes back", async () => {
    const metrics = new Metrics("test");
    for (const shard of ["1", "2"]) {
      metrics.add("moevie_exchange_retries_total", { shard }, 3);
      metrics.set("moevie_expert_shard_ready", { shard }, 1);
      metrics.observe("moevie_exchange_duration_seconds", { shard }, 0.1);
    }
    metrics.forget("shard", "1");
    const text = await metrics.text();
    expect(text).not.toContain('shard="1"');
    for (const left of ["retries_total", "duration_seconds_count"])
      expect(text).toMatch(new RegExp(`^moevie_exchange_${left}\\{[^}]*shard="2"[^}]*\\} [13]$`, "m"));
    metrics.add("moevie_exchange_retries_total", { shard: "1" });
    expect(await metrics.text()).toContain('moevie_exchange_retries_total{shard="1",service="test"} 1');
  });
});
