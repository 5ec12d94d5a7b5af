"""Trains the causal decoder on drawn clips. Called by train.py; resumable from RUN/decoder.pt."""

import time
from pathlib import Path

import numpy as np
import torch

import latents
from bank import Bank, unit
from model import Decoder, Upsampler


CELLS = 10  # a crop is 10 x 10 latent cells, 80 x 80 pixels


def batch(bank, upsampler, size, noise):
    """Latents [B, 24, K, 10, 10] of K = 2 or 3 key frames, pictures [B, 4K-3, 3, 80, 80], weights; crops lean to the subject.
    All are of the fine world, most from latents that the upsampler made: the decoder is given no others."""
    rng, zs, pictures, weights = bank.rng, [], [], []
    keys = 2 if rng.random() < 0.6 else 3
    for _ in range(size):
        clip, first = bank.pick(), int(rng.integers(6 - keys))
        level = noise * rng.random()
        if upsampler is not None and rng.random() < 0.7:
            coarse = clip["coarse"][:, first:first + keys].transpose(0, 1)
            with torch.no_grad():
                z = upsampler(coarse + level * torch.randn_like(coarse)).transpose(0, 1)
        else:
            z = clip["fine"][:, first:first + keys]
            z = z + level * torch.randn_like(z)
        when = slice(4 * first, 4 * (first + keys) - 3)
        mask = clip["mask"][when]
        tries = [(int(rng.integers(z.shape[2] - CELLS + 1)), int(rng.integers(z.shape[3] - CELLS + 1))) for _ in range(3)]
        y, x = max(tries, key=lambda at: mask[:, at[0] * 8:at[0] * 8 + 80, at[1] * 8:at[1] * 8 + 80].sum())
        rows, columns = slice(y * 8, y * 8 + 80), slice(x * 8, x * 8 + 80)
        zs.append(z[..., y:y + CELLS, x:x + CELLS])
        pictures.append(unit(clip["pictures"][when, rows, columns]))
        weights.append(torch.from_numpy(1 + 2 * mask[:, rows, columns].astype(np.float32)))
    pca = bank.pca
    z = torch.stack(zs) * pca["latents_std"].view(-1, 1, 1, 1) + pca["latents_mean"].view(-1, 1, 1, 1)
    return z, torch.stack(pictures).permute(0, 1, 4, 2, 3), torch.stack(weights)[:, :, None]


def train(run, minutes, device="cpu", size=4, peak=7e-4, noise=0.25, seed=1, clips=300):
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
    seen = state.get("seen", 0) if state else 0
    upsampler = None
    if (run / "upsampler.pt").exists():
        upsampler = Upsampler().eval()
        upsampler.load_state_dict(torch.load(run / "upsampler.pt")["model"])
    bank = Bank(np.random.default_rng([seed, seen]), clips, pca)
    began, step = time.time(), 0
    while (spent := (time.time() - began) / 60) < minutes:
        rate = min(1, (step + 1) / 100) * max(0.02, 1 - spent / minutes)
        optim.param_groups[0]["lr"] = peak * rate
        z, target, weight = (x.to(device) for x in batch(bank, upsampler, size, noise))
        if step % 2 == 0:
            bank.refresh()
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            made = net(z)
        error = (made.float() - target)
        loss = ((error.pow(2) + 1e-4).sqrt() * weight).mean() + 2 * (error.pow(2) * weight).mean()
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optim.step()
        step, seen = step + 1, seen + size
        now = np.array([loss.item(), *(-10 * np.log10(error.detach()[:, part].pow(2).mean().item() / 4)
                                       for part in (slice(0, 1), slice(1, None)))])
        figures = now if step == 1 else 0.98 * figures + 0.02 * now
        mean, key, between = figures
        if step % 50 == 0:
            print(f"decoder minutes {spent:.1f} windows {seen} loss {mean:.4f} psnr of key frames, in-between {key:.2f} {between:.2f}", flush=True)
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
