"""Trains a judge on drawn clips and scores a trained run on prompts of held-out combinations.

The judge sees key frames at half size. It must also tell spoiled clips (subject cells noisy, mixed with
another clip's, doubled, or shuffled, in some key frames or all) from sound ones: `sound` is the share of made clips it accepts, `strict` the
share with the right subject that it also accepts. Usage: python judge.py RUN [prompts] [guidance] [minutes], or
python judge.py RUN PROMPTS 1.0 MINUTES STEPS for the draft with so many UniPC steps.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import captions
import export
import latents
import sample
import world

NAMES = list(world.ATTRIBUTES)
SIZES = [len(v) for v in world.ATTRIBUTES.values()]


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        layers, width = [], 3
        for out in (32, 64, 96, 128):
            layers += [nn.Conv2d(width, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
        self.body, self.head = nn.Sequential(*layers), nn.Sequential(nn.Linear(5 * 128 * 15, 192), nn.ReLU(), nn.Linear(192, sum(SIZES) + 2))

    def forward(self, x):
        n = len(x)
        return self.head(self.body(x.flatten(0, 1)).reshape(n, -1))


def linear_pictures(pca, z):
    """Key pictures [n, 5, 3, 40, 72] from normalised latents [n, 24, 5, 10, 18] by the encoder's transpose."""
    raw = z * pca["latents_std"].view(-1, 1, 1, 1) + pca["latents_mean"].view(-1, 1, 1, 1)
    flat = raw.permute(0, 2, 3, 4, 1) @ pca["basis"].T + pca["mean"]
    pixels = nn.functional.pixel_shuffle(flat.permute(0, 1, 4, 2, 3).flatten(0, 1), 8)
    return nn.functional.avg_pool2d(pixels, 2).view(len(z), 5, 3, 40, 72)


def drawn(pca, rng, size, test=False):
    """Latents, labels and spoiled flags of drawn clips; half of them spoiled under the subject."""
    zs, covers, labels = [], [], []
    for _ in range(size):
        scene = world.sample(rng, test)
        pictures, masks = world.render(scene)
        zs.append(latents.encode(pca, pictures))
        covers.append(latents.cells(masks) > 0.1)
        labels.append(scene.labels())
    z, cover = torch.stack(zs), torch.stack(covers)[:, None]
    bad = torch.from_numpy(rng.random(size) < 0.5)
    soft = z + torch.rand(size, 1, 1, 1, 1) * 0.35 * torch.randn_like(z)
    for i in torch.nonzero(bad).flatten().tolist():
        kind, hole = rng.integers(5), cover[i].float()
        some = torch.from_numpy(rng.random(5) < 0.5)
        some[int(rng.integers(5))] = True
        hole = hole * some.view(1, 5, 1, 1)
        if kind == 0:
            wrong = z[i] + (0.8 + rng.random()) * torch.randn_like(z[i])
        elif kind == 1:
            wrong = 0.5 * z[i] + 0.5 * z[int(rng.integers(size))]
        elif kind <= 3:
            way = int(rng.choice([-5, -4, -3, -2, 2, 3, 4, 5]))
            wrong, hole = torch.roll(z[i], way, 3), torch.roll(hole, way, 3) * (1 - hole * (rng.random() < 0.5))
        else:
            wrong = torch.roll(z[i].flip(3), int(rng.integers(1, 4)), 2)
        # As noisy elsewhere as a sound clip: or the judge would learn that what is clean is spoiled.
        soft[i] = soft[i] * (1 - hole) + wrong * hole
    return soft, torch.tensor(labels), bad.long()


def train(run, minutes, seed=8):
    pca, rng = torch.load(Path(run) / "pca.pt"), np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Judge()
    optim = torch.optim.AdamW(net.parameters(), lr=1.5e-3)
    began, step = time.process_time(), 0
    while (spent := (time.process_time() - began) / 60) < minutes:
        optim.param_groups[0]["lr"] = 1.5e-3 * (1 - spent / minutes)
        z, labels, bad = drawn(pca, rng, 32)
        *parts, sound = net(linear_pictures(pca, z)).split([*SIZES, 2], 1)
        losses = [nn.functional.cross_entropy(p, labels[:, i], reduction="none")[bad == 0].mean() for i, p in enumerate(parts)]
        loss = sum(losses) + nn.functional.cross_entropy(sound, bad)
        optim.zero_grad()
        loss.backward()
        optim.step()
        step += 1
    net.eval()
    with torch.no_grad():
        # When in doubt it rejects: a clip is sound when it is spoiled with less than 30 %.
        net.head[2].bias[-1] += np.log(0.7 / 0.3)
        z, labels, bad = drawn(pca, np.random.default_rng(77), 256, test=True)
        *parts, sound = net(linear_pictures(pca, z)).split([*SIZES, 2], 1)
        own = {n: round(float((p.argmax(1) == labels[:, i])[bad == 0].float().mean()), 3) for i, (n, p) in enumerate(zip(NAMES, parts))}
        print("judge itself, held-out drawn clips:", own, "sound accepted", round(float((sound.argmax(1) == 0)[bad == 0].float().mean()), 3),
              "spoiled rejected", round(float((sound.argmax(1) == 1)[bad == 1].float().mean()), 3), flush=True)
    torch.save(net.state_dict(), Path(run) / "judge.pt")
    return net


def interval(hits):
    """Share and its 95 % Wilson bounds, of a tensor of hits."""
    n, p, z = len(hits), float(hits.float().mean()), 1.96
    middle, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    return [round(v, 3) for v in (p, middle - half, middle + half)]


@torch.no_grad()
def score(run, net, count=64, guidance=2.0, seed=21, **sampling):
    """Per language, [share, low, high] of prompts of held-out combinations; `shuffled` compares with another prompt's scene."""
    nets, pca = export.networks(run, smoothed=True), torch.load(Path(run) / "pca.pt")
    if sampling.pop("draft", False):
        nets = nets[0], export.draft_of(run, nets[1]), *nets[2:]
    tok, table = captions.load(Path(run) / "tokenizer.json"), {}
    for language, write in (("english", captions.english), ("chinese", captions.chinese)):
        rng = np.random.default_rng(seed)
        scenes = [world.sample(rng, test=True) for _ in range(count)]
        texts = [write(rng, s, dict.fromkeys(NAMES, True)) for s in scenes]
        said, sound = [], []
        for at in range(0, count, 16):
            z = sample.latents_for(nets, tok, texts[at:at + 16], seed=at, guidance=guidance, **sampling)
            made = sample.pictures(nets, pca, z)[:, ::4]
            small = nn.functional.avg_pool2d(made.flatten(0, 1), 2).view(len(made), 5, 3, 40, 72)
            *parts, ok = net(small).split([*SIZES, 2], 1)
            said.append(torch.stack([p.argmax(1) for p in parts], 1))
            sound.append(ok.argmax(1) == 0)
        said, sound, labels = torch.cat(said), torch.cat(sound), torch.tensor([s.labels() for s in scenes])
        hits, crossed = said == labels, said == labels.roll(1, 0)
        table[language] = {"n": count, **{n: interval(hits[:, i]) for i, n in enumerate(NAMES)},
                           "sound": interval(sound), "strict": interval(hits[:, 0] & sound),
                           "shuffled": {n: interval(crossed[:, i])[0] for i, n in enumerate(NAMES)}}
        print(language, table[language], flush=True)
    return table


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    count, guidance, minutes = (float(v) for v in (*sys.argv[2:5], *("64", "2.0", "3")[len(sys.argv[:5]) - 2:]))
    draft = {"draft": True, "steps": int(sys.argv[5]), "sampler": "unipc"} if len(sys.argv) > 5 else {}
    judge = Judge()
    if (folder / "judge.pt").exists():
        judge.load_state_dict(torch.load(folder / "judge.pt"))
        judge.eval()
    else:
        judge = train(folder, minutes)
    score(folder, judge, int(count), guidance, **draft)
