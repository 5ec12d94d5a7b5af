// What queries of the overview board are made of.

export const q = (expr, legend) => ({ expr, legend });
export const quantile = (p, metric, by = []) =>
  `histogram_quantile(${p}, sum by (${["le", ...by].join(", ")}) (rate(${metric}_bucket[$__rate_interval])))`;
export const mean = (metric, by) =>
  `sum by (${by}) (rate(${metric}_sum[$__rate_interval])) / (sum by (${by}) (rate(${metric}_count[$__rate_interval])) > 0)`;
export const zeroSafe = (expr) => `(${expr}) or vector(0)`;
