"""Trains the latent upsampler on drawn scenes: what the encoder says of a picture, to what it says of the same picture twice as
fine. Called by train.py; resumable from RUN/upsampler.pt."""

import time
from pathlib import Path

import numpy as np
import torch

from bank import Bank
from model import Upsampler


def batch(bank, size, noise):
    """Noisy latents [B, 24, 10, 18], fine latents [B, 24, 20, 36], weights [B, 1, 20, 36] that lean to the subject."""
    coarse, fine, weights = [], [], []
    for _ in range(size):
        clip, k = bank.pick(), int(bank.rng.integers(5))
        z = clip["coarse"][:, k]
        coarse.append(z + noise * bank.rng.random() * torch.randn_like(z))
        fine.append(clip["fine"][:, k])
        cover = clip["mask"][4 * k].reshape(20, 8, 36, 8).max((1, 3))
        weights.append(torch.from_numpy(1 + 3 * cover.astype(np.float32))[None])
    return torch.stack(coarse), torch.stack(fine), torch.stack(weights)


def train(run, minutes, device="cpu", size=16, peak=1e-3, noise=0.3, seed=2, clips=400):
    run = Path(run)
    pca = torch.load(run / "pca.pt")
    torch.manual_seed(seed)
    net, seen = Upsampler(), 0
    if (run / "upsampler.pt").exists():
        state = torch.load(run / "upsampler.pt")
        net.load_state_dict(state["model"])
        seen = state.get("seen", 0)
    net = net.to(device)
    # Components are orthonormal, so an error in their own units is an error of the picture.
    scale = pca["latents_std"].view(-1, 1, 1).to(device)
    optim = torch.optim.AdamW(net.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=1e-4)
    bank = Bank(np.random.default_rng([seed, seen]), clips, pca)
    began, step, mean = time.time(), 0, None
    while (spent := (time.time() - began) / 60) < minutes:
        optim.param_groups[0]["lr"] = peak * min(1, (step + 1) / 100) * max(0.02, 1 - spent / minutes)
        if step % 2 == 0:
            bank.refresh()
        z, target, weight = (x.to(device) for x in batch(bank, size, noise))
        error = net(z) - target
        picture = ((error * scale).pow(2).sum(1, keepdim=True) * weight).mean() / 192
        loss = picture.sqrt() + 0.1 * (error.abs() * weight).mean()
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optim.step()
        step, seen = step + 1, seen + size
        value = -10 * np.log10((error.detach() * scale).pow(2).sum(1).mean().item() / 192 / 4)
        mean = value if mean is None else 0.98 * mean + 0.02 * value
        if step % 100 == 0:
            print(f"upsampler minutes {spent:.1f} pictures {seen} loss {loss.item():.4f} psnr within the components {mean:.2f}", flush=True)
        if step % 400 == 0:
            torch.save({"model": net.state_dict(), "seen": seen}, run / "upsampler.pt")
    torch.save({"model": net.state_dict(), "seen": seen}, run / "upsampler.pt")


if __name__ == "__main__":
    import sys
    torch.set_num_threads(1)
    train(sys.argv[1], float(sys.argv[2]))
