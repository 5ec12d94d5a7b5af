"""Trains the causal decoder on drawn clips. Called by train.py; resumable from RUN/decoder.pt."""

import time
from pathlib import Path

import numpy as np
import torch

import latents
import world
from model import Decoder


def batch(pca, rng, size, noise):
    """Latents [B, 24, K, 6, 6] of K = 2 or 3 key frames, pictures [B, 4K-3, 3, 48, 48], weights; crops lean to the subject."""
    zs, pictures, weights = [], [], []
    keys = 2 if rng.random() < 0.6 else 3
    for _ in range(size):
        start = int(rng.integers(6 - keys)) * 4
        drawn, masks = world.render(world.sample(rng), tuple(range(start, start + 4 * keys - 3)))
        z = latents.encode(pca, drawn[::4])
        tries = [(int(rng.integers(5)), int(rng.integers(13))) for _ in range(3)]
        y, x = max(tries, key=lambda at: masks[:, at[0] * 8:at[0] * 8 + 48, at[1] * 8:at[1] * 8 + 48].sum())
        zs.append(z[..., y:y + 6, x:x + 6])
        pictures.append(drawn[:, y * 8:y * 8 + 48, x * 8:x * 8 + 48])
        weights.append(1 + 2 * masks[:, y * 8:y * 8 + 48, x * 8:x * 8 + 48])
    z = torch.stack(zs)
    z = z + noise * torch.rand(size, 1, 1, 1, 1) * torch.randn_like(z)
    z = z * pca["latents_std"].view(-1, 1, 1, 1) + pca["latents_mean"].view(-1, 1, 1, 1)
    target = torch.from_numpy(np.stack(pictures)).permute(0, 1, 4, 2, 3)
    return z, target, torch.from_numpy(np.stack(weights))[:, :, None]


def train(run, minutes, device="cpu", size=4, peak=7e-4, noise=0.25, seed=1):
    run = Path(run)
    pca = torch.load(run / "pca.pt")
    torch.manual_seed(seed)
    net, state = Decoder(), None
    if (run / "decoder.pt").exists():
        state = torch.load(run / "decoder.pt")
        net.load_state_dict(state["model"])
    else:
        with torch.no_grad():
            for name in ("skip_first", "skip_next"):
                layer = getattr(net, name)
                layer.weight.zero_()
                wide = pca["basis"].view(192, 24, 1, 1)
                if name == "skip_first":
                    layer.weight.copy_(wide)
                else:
                    for f in range(4):
                        layer.weight[f * 192:(f + 1) * 192, :24] = wide * (3 - f) / 4
                        layer.weight[f * 192:(f + 1) * 192, 24:] = wide * (f + 1) / 4
                layer.bias.copy_(pca["mean"].repeat(1 if name == "skip_first" else 4))
            net.out.weight.mul_(0.1)
    net = net.to(device, memory_format=torch.channels_last)
    optim = torch.optim.AdamW(net.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=1e-4)
    seen = state["seen"] if state else 0
    rng, began, step = np.random.default_rng([seed, seen]), time.time(), 0
    while (spent := (time.time() - began) / 60) < minutes:
        rate = min(1, (step + 1) / 100) * max(0.02, 1 - spent / minutes)
        optim.param_groups[0]["lr"] = peak * rate
        z, target, weight = (x.to(device) for x in batch(pca, rng, size, noise))
        with torch.autocast(device, torch.bfloat16):
            made = net(z)
        error = (made.float() - target)
        loss = ((error.pow(2) + 1e-4).sqrt() * weight).mean() + 2 * (error.pow(2) * weight).mean()
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optim.step()
        step, seen = step + 1, seen + size
        if step % 50 == 0:
            psnr = [-10 * np.log10(error.detach()[:, part].pow(2).mean().item() / 4) for part in (slice(0, 1), slice(1, None))]
            line = f"decoder minutes {spent:.1f} windows {seen} loss {loss.item():.4f} psnr {psnr[0]:.2f} {psnr[1]:.2f}"
            print(line, flush=True)
        if step % 200 == 0:
            torch.save({"model": net.state_dict(), "seen": seen}, run / "decoder.pt")
    torch.save({"model": net.state_dict(), "seen": seen}, run / "decoder.pt")


if __name__ == "__main__":
    import sys
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pca.pt").exists():
        fitted = latents.fit()
        print("pca explains", fitted["explained"], "latent std", fitted["latents_std"].tolist())
        torch.save(fitted, folder / "pca.pt")
    train(folder, float(sys.argv[2]))
