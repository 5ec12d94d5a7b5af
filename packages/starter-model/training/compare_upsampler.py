"""What the latent upsampler gives: clips of held-out drawn scenes, encoded, decoded with and without it, against the scene drawn
twice as fine. Prints PSNR and SSIM and writes a picture of crops: without, with, truth.

    python compare_upsampler.py RUN PICTURE.png [DECODER]

DECODER: a decoder.pt of one trained at the model's own size alone, for the clips without; RUN's own when not given.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import latents
import sample
import world
from model import Decoder, Upsampler

SCENES, SEED = 48, 3
KEYS = np.arange(0, 17, 4)
BETWEEN = np.array([f for f in range(17) if f % 4])


def ssim(a, b):
    """Mean structural similarity of pictures [n, 3, h, w] in -1..1 (Wang et al. 2004, 11 x 11 Gaussian window, sigma 1.5)."""
    x = torch.arange(11).float() - 5
    line = torch.exp(-x * x / 4.5)
    window = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 11, 11)

    def mean(v):
        return F.conv2d(v, window, groups=3)
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 0.02 ** 2, 0.06 ** 2
    return float((((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean())


def psnr(a, b):
    return -10 * np.log10(float((a - b).pow(2).mean()) / 4)


def load(net, path):
    net.load_state_dict(torch.load(path)["model"])
    return net.eval()


@torch.no_grad()
def main(run, picture, plain=None):
    run = Path(run)
    pca, upsampler, fine = torch.load(run / "pca.pt"), load(Upsampler(), run / "upsampler.pt"), load(Decoder(), run / "decoder.pt")
    coarse = load(Decoder(), plain or run / "decoder.pt")

    def raw(z):
        return z[None] * pca["latents_std"].view(-1, 1, 1, 1) + pca["latents_mean"].view(-1, 1, 1, 1)
    rng, figures, rows = np.random.default_rng(SEED), {}, []
    for n in range(SCENES):
        scene = world.sample(rng, test=True)
        small, _ = world.render(scene, range(17))
        truth = torch.from_numpy(world.render(scene, range(17), 2)[0]).permute(0, 3, 1, 2)
        z = latents.encode(pca, small[::4])
        without = F.interpolate(coarse(raw(z))[0].clamp(-1, 1), scale_factor=2, mode="bicubic").clamp(-1, 1)
        made = fine(raw(upsampler(z.transpose(0, 1)).transpose(0, 1)))[0].clamp(-1, 1)
        for name, clip in (("without", without), ("with", made)):
            for kind, at in (("key frames", KEYS), ("in-between", BETWEEN)):
                figures.setdefault((name, kind), []).append((psnr(clip[at], truth[at]), ssim(clip[at], truth[at])))
        if n < 4:
            x, y, _ = world.place_subject(scene, 4)
            left, top = min(max(2 * x - 64, 0), 160), min(max(2 * y - 112, 0), 32)
            crops = [clip[4, :, top:top + 128, left:left + 128] for clip in (without, made, truth)]
            rows.append(torch.cat(crops, 2))
    for (name, kind), values in figures.items():
        p, s = np.mean(values, 0)
        print(f"{name:8} {kind:11} PSNR {p:.2f} dB  SSIM {s:.3f}")
    sheet = torch.cat([torch.cat(rows[:2], 2), torch.cat(rows[2:], 2)], 1)
    sample.png(picture, ((sheet.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy().copy())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:4])
