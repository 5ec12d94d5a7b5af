"""Trains the starter model from nothing and exports it: the one documented command.

    python train.py --out DIR [--run RUN] [--device cpu|cuda] [--minutes M]

Stages are skipped when their checkpoint in RUN is finished, so a stopped run goes on where it was.
"""

import argparse
import json
from pathlib import Path

import torch

import export
import latents
import train_decoder
import train_dit
import train_draft
import train_text
import train_upsampler

SHARES = {"text": 0.05, "upsampler": 0.1, "decoder": 0.25, "frames": 0.11, "clips": 0.34, "motion": 0.09, "draft": 0.06}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="package folder that receives weights/ and parity/")
    parser.add_argument("--run", default=str(Path(__file__).parent / ".run"), help="folder of checkpoints")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--minutes", type=float, default=120, help="training time of all stages together")
    options = parser.parse_args()
    run, device = Path(options.run), options.device
    run.mkdir(parents=True, exist_ok=True)
    if device == "cpu":
        torch.set_num_threads(1)
    if not (run / "pca.pt").exists():
        torch.save(latents.fit(), run / "pca.pt")
    done_path = run / "stages.json"
    done = json.loads(done_path.read_text()) if done_path.exists() else []
    stages = {
        "text": lambda m: train_text.train(run, m, device),
        "upsampler": lambda m: train_upsampler.train(run, m, device),
        "decoder": lambda m: train_decoder.train(run, m, device),
        "frames": lambda m: train_dit.train(run, m, frames=1, size=32, device=device, floor=0.4),
        "clips": lambda m: train_dit.train(run, m, frames=5, size=12, peak=1.2e-3, device=device),
        # Which way a subject goes is decided in the noise, and is the last thing learned.
        "motion": lambda m: train_dit.train(run, m, frames=5, size=12, peak=6e-4, text_share=0.5, device=device, shift=5.0, moving=0.7),
        "draft": lambda m: train_draft.train(run, m, device=device),
    }
    for name, stage in stages.items():
        if name not in done:
            stage(options.minutes * SHARES[name])
            done.append(name)
            done_path.write_text(json.dumps(done))
    export.main(run, home=options.out)


if __name__ == "__main__":
    main()
