// The denoiser of a bundle whose experts are for tokens. Throws for one of another kind.
import { isNoiseDenoiser, type Bundle, type TokenDenoiser } from "@moevie/bundle";

export function tokenDenoiser({ manifest: { name, denoiser } }: Bundle): TokenDenoiser {
  if (isNoiseDenoiser(denoiser)) throw new Error(`${name} has whole denoisers for experts`);
  return denoiser;
}
