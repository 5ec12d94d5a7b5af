"""Draws clips from prompts with a trained run, as contact sheets (PNG): for looking, and for the judge."""

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


@torch.no_grad()
def latents_for(nets, tok, prompts, seed=0, steps=20, shift=3.0, guidance=2.0, frames=5):
    """Normalised latents [n, 24, frames, 10, 18] by Euler steps with guidance."""
    text, dit = nets[:2]
    _, context = export.context_of(text, tok, [*prompts, ""])
    n = len(prompts)
    both = torch.cat((context[:n], context[n:].expand(n, -1, -1)))
    x = torch.randn(n, 24, frames, 10, 18, generator=torch.Generator().manual_seed(seed))
    grid = sigmas(steps, shift)
    for now, after in zip(grid, grid[1:]):
        v = dit(torch.cat((x, x)), torch.full((2 * n,), float(int(1000 * now))), both)
        x = x + (after - now) * (v[n:] + guidance * (v[:n] - v[n:]))
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


def main(run, path, seed=0, guidance=2.0, shift=3.0):
    nets = export.networks(run, smoothed=True)
    tok, pca = captions.load(Path(run) / "tokenizer.json"), torch.load(Path(run) / "pca.pt")
    sheet(path, pictures(nets, pca, latents_for(nets, tok, PROMPTS, seed, shift=shift, guidance=guidance)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], sys.argv[2], *(float(v) if "." in v else int(v) for v in sys.argv[3:]))
