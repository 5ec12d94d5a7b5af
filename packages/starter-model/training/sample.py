"""Draws clips from prompts with a trained run, as contact sheets (PNG): for looking, and for the judge."""

import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

import captions
import export

PROMPTS = ["a golden dog runs along the beach at sunset", "一只金毛犬在夕阳下的海滩奔跑，慢动作，电影质感",
           "a red car drives through the city at night", "一个人骑着红色自行车穿过雨中的街道", "a blue boat on the sea, snow",
           "a green bird flies over the meadow during the day", "夜晚的城市，粉色的星星", "a purple ball bouncing in the street at noon"]


def sigmas(steps, shift):
    base = np.linspace(1, 0.001, steps + 1)[:-1]
    return [*(shift * base / (1 + (shift - 1) * base)), 0.0]


class UniPc:
    """UniPC of order 2 over `grid`, as packages/diffusion has it: `step` takes the latent and the velocity at grid[i] to the latent at grid[i + 1]."""

    def __init__(self, grid):
        self.s = [min(float(s), 1 - 1e-6) for s in grid]
        self.seen, self.last, self.order = [], None, 0

    def reach(self, i, j):
        """Log-signal steps from grid[i] to grid[j], and expm1 of their negative."""
        a, b = self.s[i], self.s[j]
        return math.log((1 - b) / b) - math.log((1 - a) / a), (b - a) / (a * (1 - b))

    def step(self, i, x, v):
        clean = x - self.s[i] * v
        if self.last is not None:
            h, phi = self.reach(i - 1, i)
            weight, newest = (1 - self.s[i]) * phi, self.seen[-1]
            x = self.s[i] / self.s[i - 1] * self.last - weight * newest
            if self.order < 2:
                x = x - 0.5 * weight * (clean - newest)
            else:
                r, psi1 = self.reach(i - 1, i - 2)[0] / h, -phi / h - 1
                b1, b2 = psi1 / phi, 2 * (-psi1 / h - 0.5) / phi
                first = (b1 - b2) / (1 - r)
                x = x - weight * first / r * (self.seen[-2] - newest) - weight * (b1 - first) * (clean - newest)
        self.order = min(2, len(self.s) - 1 - i, self.order + 1 if self.seen else 1)
        self.seen, self.last = [*self.seen, clean][-2:], x
        if self.s[i + 1] == 0:
            return clean
        h, phi = self.reach(i, i + 1)
        weight = (1 - self.s[i + 1]) * phi
        y = self.s[i + 1] / self.s[i] * x - weight * clean
        return y if self.order < 2 else y - 0.5 * weight / (self.reach(i, i - 1)[0] / h) * (self.seen[-2] - clean)


@torch.no_grad()
def latents_for(nets, tok, prompts, seed=0, steps=20, shift=3.0, guidance=2.0, frames=5, sampler="euler"):
    """Normalised latents [n, 24, frames, 10, 18] by Euler or UniPC steps; a guidance of 1 runs the conditional branch alone."""
    text, dit = nets[:2]
    _, context = export.context_of(text, tok, [*prompts, ""])
    n = len(prompts)
    x = torch.randn(n, 24, frames, 10, 18, generator=torch.Generator().manual_seed(seed))
    grid = sigmas(steps, shift)
    unipc = UniPc(grid) if sampler == "unipc" else None
    for i, (now, after) in enumerate(zip(grid, grid[1:])):
        at = torch.full((n,), float(int(1000 * now)))
        v = dit(x, at, context[:n])
        if guidance > 1:
            free = dit(x, at, context[n:].expand(n, -1, -1))
            v = free + guidance * (v - free)
        x = unipc.step(i, x, v) if unipc else x + (after - now) * v
    return x


@torch.no_grad()
def pictures(nets, pca, z):
    raw = z * pca["latents_std"].view(-1, 1, 1, 1) + pca["latents_mean"].view(-1, 1, 1, 1)
    return nets[2](raw).clamp(-1, 1)


def png(path, array):
    """Writes [h, w, 3] uint8."""
    h, w, _ = array.shape
    rows = b"".join(b"\0" + array[i].tobytes() for i in range(h))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
                           + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def sheet(path, clips, frames=(0, 4, 6, 8, 12, 16)):
    """clips [n, 17, 3, 80, 144] as rows of some frames."""
    rows = [torch.cat([clip[f] for f in frames], -1) for clip in clips]
    whole = torch.cat(rows, 1).permute(1, 2, 0)
    png(path, ((whole + 1) * 127.5).round().to(torch.uint8).numpy().copy())


def main(run, path, seed=0, guidance=2.0, shift=3.0, steps=0):
    """With `steps`, the draft of the run with so many UniPC steps."""
    nets = export.networks(run, smoothed=True)
    draft = {"steps": steps, "sampler": "unipc"} if steps else {}
    if draft:
        nets = nets[0], export.draft_of(run, nets[1]), *nets[2:]
    tok, pca = captions.load(Path(run) / "tokenizer.json"), torch.load(Path(run) / "pca.pt")
    sheet(path, pictures(nets, pca, latents_for(nets, tok, PROMPTS, seed, shift=shift, guidance=guidance, **draft)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], sys.argv[2], *(float(v) if "." in v else int(v) for v in sys.argv[3:]))
