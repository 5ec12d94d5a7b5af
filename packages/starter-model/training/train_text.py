"""Makes the tokenizer and pre-trains the text encoder to predict a scene's attributes from every token. Goes on from RUN/text.pt."""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import captions
import world
from model import TextEncoder

SIZES = [len(v) for v in world.ATTRIBUTES.values()]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def batch(tok, rng, size, test=False):
    texts, labels = [], []
    for _ in range(size):
        scene = world.sample(rng, test)
        text, said = captions.caption(rng, scene)
        if not test and rng.random() < 0.15:
            words = text.split(" ")
            words.insert(int(rng.integers(len(words) + 1)), "".join(rng.choice(LETTERS, int(rng.integers(3, 9)))))
            text = " ".join(words)
        labels.append([v if s else -1 for v, s in zip(scene.labels(), said)])
        texts.append(text)
    return texts, torch.from_numpy(captions.encode(tok, texts)), torch.tensor(labels)


def train(run, minutes=3.0, device="cpu", seed=2):
    run = Path(run)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    if not (run / "tokenizer.json").exists():
        texts = [captions.caption(rng, world.sample(rng))[0] for _ in range(20000)]
        captions.make_tokenizer(run / "tokenizer.json", texts, 1200)
    tok = captions.load(run / "tokenizer.json")
    net = TextEncoder(vocab_size=captions.vocabulary_size(run / "tokenizer.json")).to(device)
    head = nn.Linear(160, sum(SIZES)).to(device)
    saved = torch.load(run / "text.pt") if (run / "text.pt").exists() else {}
    if "model" in saved:
        net.load_state_dict(saved["model"])
    if "head" in saved:
        head.load_state_dict(saved["head"])
    seen = saved.get("seen", 0)
    rng = np.random.default_rng([seed, seen]) if seen else rng
    optim = torch.optim.AdamW([*net.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.01)
    began, step = time.time(), 0
    while (spent := (time.time() - began) / 60) < minutes:
        optim.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * max(0.02, 1 - spent / minutes)
        _, ids, labels = batch(tok, rng, 128)
        context = net(ids.to(device))
        real = (ids != 0).to(device)
        mean = context.sum(1) / real.sum(1, keepdim=True)
        loss = 0
        for out, weight in ((head(context), 0.5), (head(mean)[:, None], 1.0)):
            for i, part in enumerate(out.split(SIZES, -1)):
                target = labels[:, i, None].expand(part.shape[:2]).clone().to(device)
                if part.shape[1] > 1:
                    target[~real] = -1
                if (target >= 0).any():
                    loss = loss + weight * nn.functional.cross_entropy(part.flatten(0, 1), target.flatten(), ignore_index=-1)
        optim.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optim.step()
        step += 1
        if step % 50 == 0:
            print(f"text minutes {spent:.1f} captions {step * 128} loss {loss.item():.4f}", flush=True)
    print("text held-out accuracy", accuracy(net, head, tok), flush=True)
    torch.save({"model": net.state_dict(), "head": head.state_dict(), "seen": seen + step * 128}, run / "text.pt")


@torch.no_grad()
def accuracy(net, head, tok):
    """Share right per attribute on captions of held-out combinations."""
    _, ids, labels = batch(tok, np.random.default_rng(99), 1024, test=True)
    mean = net(ids).sum(1) / (ids != 0).sum(1, keepdim=True)
    guess = torch.stack([p.argmax(-1) for p in head(mean).split(SIZES, -1)], 1)
    return {n: round(float((guess == labels)[labels[:, i] >= 0][:, i].float().mean()), 4) for i, n in enumerate(world.ATTRIBUTES)}


if __name__ == "__main__":
    import sys
    torch.set_num_threads(1)
    train(sys.argv[1], float(sys.argv[2]))
