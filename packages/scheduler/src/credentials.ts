// How a clip was made, as a file beside it: the assertions of a C2PA manifest (Content Credentials), not signed. It says what made the
// clip, never what was asked for: prompts stay in the job's record.
import type { ClipFacts } from "@moevie/contracts";
import type { JobRun } from "./job-run.ts";

const SOFTWARE = "moevie";
/** IPTC's word for media made by a trained model. */
const SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";

/** The text of credentials.json. */
export function credentials(run: JobRun, facts: ClipFacts): string {
  const { seed, steps, guidance, guidanceLow, boundary, shift, grid, sampler, model } = run.spec;
  const asked = { seed, steps, guidance, guidanceLow, boundary, shift, grid, sampler };
  const { width, height, fps, frameCount, sha256, sprites, color } = facts;
  const created = { action: "c2pa.created", digitalSourceType: SOURCE_TYPE, softwareAgent: SOFTWARE };
  const assertions = [
    { label: "c2pa.actions", data: { actions: [created] } },
    { label: "c2pa.hash.data", data: { alg: "sha256", hash: sha256 } },
    {
      label: "moevie.generation",
      data: { model, modelDigest: run.model.digest, ...asked, width, height, fps, frameCount },
    },
    { label: "moevie.color", data: { corrected: run.spec.colorCorrection, ...color } },
    { label: "moevie.sprites", data: sprites },
  ];
  return `${JSON.stringify({ claim_generator: SOFTWARE, format: "video/mp4", assertions }, null, 2)}\n`;
}
