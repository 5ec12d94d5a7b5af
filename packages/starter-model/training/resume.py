"""Rebuilds a run folder from the committed weights, so that training can go on where they ended.

    python resume.py RUN

The encoder is not committed: it is fitted again (same seed) and its components are given the signs of the latents
recorded in ../parity/decoder.safetensors, because a linear-algebra library may turn a component around.
"""

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import export
import latents
import world


def encoder(recorded):
    """The fitted encoder, its components turned to agree with `recorded` latents; an error if they do not agree."""
    pca = latents.fit()
    pictures, _ = world.render(world.Scene("dog", "golden", "beach", "sunset", "clear", "left to right"))
    agree = (latents.encode(pca, pictures)[:, :2] * recorded).flatten(1).sum(1)
    pca["basis"] *= torch.where(agree < 0, -1.0, 1.0)
    pca["latents_mean"] *= torch.where(agree < 0, -1.0, 1.0)
    worst = float((latents.encode(pca, pictures)[:, :2] - recorded).abs().max())
    if worst > 0.02:
        raise SystemExit(f"the fitted encoder differs from the recorded latents by {worst:.3f} (allowed: 0.02); train from nothing instead")
    return pca


def main(run, home=export.HOME):
    run, weights = Path(run), Path(home) / "weights"
    if (run / "dit.pt").exists():
        raise SystemExit(f"{run} holds a run already; give an empty folder")
    run.mkdir(parents=True, exist_ok=True)
    pca = encoder(load_file(Path(home) / "parity/decoder.safetensors")["latents"][0].float())
    parts = {name: {k: v.float() for k, v in load_file(weights / folder / "model.safetensors").items()}
             for name, folder in (("text", "text_encoder"), ("dit", "transformer"), ("decoder", "vae"), ("upsampler", "upsampler"))}
    shutil.copyfile(weights / "tokenizer/tokenizer.json", run / "tokenizer.json")
    torch.save(pca, run / "pca.pt")
    torch.save({"model": parts["text"]}, run / "text.pt")
    for name in ("decoder", "upsampler"):
        torch.save({"model": parts[name], "seen": 0}, run / f"{name}.pt")
    draft = {k: v.float() for k, v in load_file(weights / "transformer/draft.safetensors").items()}
    torch.save({"spent": 0.0, "seen": 0, "model": draft, "live": draft}, run / "draft.pt")
    torch.save({"frames": 0, "clips": 0, "minutes": 0.0, "dit": parts["dit"], "text": parts["text"],
                "ema_dit": parts["dit"], "ema_text": parts["text"]}, run / "dit.pt")


if __name__ == "__main__":
    main(sys.argv[1])
