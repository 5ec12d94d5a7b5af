// A diffusers scheduler's configuration as a sampler, a grid of noise levels and a shift. What our samplers do not do is refused by name.
import type { ConfigFile } from "./config-file.ts";

export type WanSchedule = { readonly sampler: string; readonly grid: string; readonly shift: number };

type Fixed = Readonly<Record<string, boolean | number | string | null>>;

/** One allowed value each; absent means it. */
const MULTISTEP: Fixed = {
  prediction_type: "flow_prediction",
  use_flow_sigmas: true,
  solver_order: 2,
  lower_order_final: true,
  final_sigmas_type: "zero",
  num_train_timesteps: 1000,
  thresholding: false,
  use_karras_sigmas: false,
  use_exponential_sigmas: false,
  use_beta_sigmas: false,
  use_dynamic_shifting: false,
};
const UNIPC: Fixed = { ...MULTISTEP, solver_type: "bh2", predict_x0: true, solver_p: null };
const DPMPP: Fixed = { ...MULTISTEP, solver_type: "midpoint", algorithm_type: "dpmsolver++", euler_at_final: false };
const EULER: Fixed = {
  num_train_timesteps: 1000,
  use_dynamic_shifting: false,
  invert_sigmas: false,
  use_karras_sigmas: false,
  use_exponential_sigmas: false,
  use_beta_sigmas: false,
  shift_terminal: null,
  stochastic_sampling: false,
};

const SCHEDULERS = {
  UniPCMultistepScheduler: { sampler: "unipc", grid: "diffusers", shift: "flow_shift", fixed: UNIPC },
  DPMSolverMultistepScheduler: { sampler: "dpmpp", grid: "diffusers", shift: "flow_shift", fixed: DPMPP },
  FlowMatchEulerDiscreteScheduler: { sampler: "euler", grid: "flow-match-euler", shift: "shift", fixed: EULER },
} as const;

/** Throws ConfigFileError naming key, value and what is supported. */
export function wanSchedule(config: ConfigFile): WanSchedule {
  const name = config.oneOf("_class_name", Object.keys(SCHEDULERS) as (keyof typeof SCHEDULERS)[]);
  const { sampler, grid, shift, fixed } = SCHEDULERS[name];
  for (const [key, value] of Object.entries(fixed)) config.expectValue(key, value);
  if (config.has("disable_corrector")) config.numbers("disable_corrector", 0);
  const value = config.number(shift);
  config.expect(shift, value > 0, "a number above 0");
  return { sampler, grid, shift: value };
}
