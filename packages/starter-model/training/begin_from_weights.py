"""Makes a run folder from the committed weights, so that training goes on from them: python begin_from_weights.py RUN

The fixed encoder is fitted again (same seed, same result: its statistics are compared with those in the weights). Optimizer state
is not kept with weights, so a leg that starts here warms up anew.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import latents

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def main(run):
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    pca = latents.fit()
    told = json.loads((WEIGHTS / "vae/config.json").read_text())
    for name in ("latents_mean", "latents_std"):
        if not torch.allclose(pca[name], torch.tensor(told[name]), rtol=1e-3, atol=1e-3):
            raise SystemExit(f"{name} of the fitted encoder is not that of the weights: the drawn world has changed since")
    torch.save(pca, run / "pca.pt")
    shutil.copyfile(WEIGHTS / "tokenizer/tokenizer.json", run / "tokenizer.json")
    text, dit, decoder = ({k: v.float() for k, v in load_file(WEIGHTS / part / "model.safetensors").items()}
                          for part in ("text_encoder", "transformer", "vae"))
    torch.save({"model": text}, run / "text.pt")
    torch.save({"model": decoder}, run / "decoder.pt")
    torch.save({"frames": 0, "clips": 0, "minutes": 0.0, "dit": dit, "text": text, "ema_dit": dit, "ema_text": text}, run / "dit.pt")


if __name__ == "__main__":
    main(sys.argv[1])
