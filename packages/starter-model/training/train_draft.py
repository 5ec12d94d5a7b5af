"""Trains the draft: a second trunk that answers in one evaluation, without guidance, what the model answers in two with it.

Student and teacher begin alike and share their experts, which stay as they are. The student sees drawn clips with noise on
them, and what it and the teacher make of pure noise on the way to a clip. Resumable from RUN/draft.pt.

    python train_draft.py RUN [minutes]
"""

import copy
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import captions
from model import MAX_TOKENS, Dit, TextEncoder
from train_dit import Sampler

GUIDANCE = 2.0
SHIFTS = (3.0, 5.0)


def is_trunk(name):
    """Whether a tensor of the transformer belongs to the trunk, so that the draft has its own."""
    return ".experts." not in name


def sigma_of(base, shift):
    return shift * base / (1 + (shift - 1) * base)


@torch.no_grad()
def guided(teacher, x, sigma, both, offset):
    """The teacher's velocity with guidance; `both` holds the contexts of the prompts, then that of the empty one as often."""
    conditional, free = teacher(torch.cat((x, x)), (1000 * sigma).floor().repeat(2), both, offset.repeat(2)).chunk(2)
    return free + GUIDANCE * (conditional - free)


class Walks:
    """Latents on their way from noise to a clip, each as [x, grid place, shift, ids, offset]; a walk goes on by the student's velocity or by the teacher's."""

    def __init__(self, count, seed, source):
        self.rng, self.source = np.random.default_rng(seed), source
        self.items = [self.begin() for _ in range(count)]

    def begin(self):
        z, _, offset, ids = self.source.batch(1, 5)
        return [torch.randn_like(z), 1.0, SHIFTS[int(self.rng.integers(len(SHIFTS)))], ids, offset]

    def take(self, count):
        self.picks = self.rng.choice(len(self.items), count, replace=False)
        x, base, shift, ids, offset = zip(*(self.items[at] for at in self.picks))
        return torch.cat(x), torch.tensor(base), torch.tensor(shift), list(ids), torch.cat(offset)

    def go_on(self, x, after):
        """The walks taken last are now at `x` [B, ...] and grid places `after` [B]; those at the end begin anew."""
        for at, latent, place in zip(self.picks, x, after.tolist()):
            if place < 0.02:
                self.items[at] = self.begin()
            else:
                self.items[at][:2] = latent[None], place


def contexts(text, ids):
    """Contexts [B, 48, d] of prompts, and after them the empty prompt's as often."""
    empty = torch.from_numpy(captions.encode(text.tok, [""])).to(ids[0].device)
    rows = torch.cat([F.pad(text(i), (0, 0, 0, MAX_TOKENS - i.shape[1])) for i in (*ids, empty)])
    return torch.cat((rows[:-1], rows[-1:].expand(len(rows) - 1, -1, -1)))


def load(run):
    """The text encoder and the teacher of a run, averaged and rounded as export writes them."""
    run = Path(run)
    saved = torch.load(run / "dit.pt", map_location="cpu")
    text, teacher = TextEncoder(vocab_size=captions.vocabulary_size(run / "tokenizer.json")), Dit()
    for net, part in ((text, "ema_text"), (teacher, "ema_dit")):
        net.load_state_dict({k: v.half().float() for k, v in saved[part].items()})
        net.eval().requires_grad_(False)
    text.tok = captions.load(run / "tokenizer.json")
    return text, teacher


def batch_of(source, walks, size):
    """Latents, grid places, shifts, ids and offsets: drawn clips with noise on them, then as many walks."""
    z, _, offset, ids = source.batch(size // 2, 5)
    base = torch.rand(len(z)).clamp(min=0.005)
    shift = torch.tensor(SHIFTS)[torch.randint(len(SHIFTS), (len(z),))]
    s = sigma_of(base, shift).view(-1, 1, 1, 1, 1)
    drawn = (1 - s) * z + s * torch.randn_like(z), base, shift, [ids], offset
    return tuple(a + b if isinstance(a, list) else torch.cat((a, b)) for a, b in zip(drawn, walks.take(size - len(z))))


def train(run, minutes, size=12, peak=5e-4, seed=5, pool=400, device="cpu"):
    """`minutes` are those of all calls together, of the processor's time on a CPU."""
    run, clock = Path(run), time.process_time if device == "cpu" else time.time
    text, teacher = (net.to(device) for net in load(run))
    student = copy.deepcopy(teacher)
    state = {"spent": 0.0, "seen": 0}
    if (run / "draft.pt").exists():
        saved = torch.load(run / "draft.pt")
        student.load_state_dict(saved["live"], strict=False)
        state = {k: saved[k] for k in state}
    live = {k: p.requires_grad_() for k, p in student.named_parameters() if is_trunk(k)}
    ema = {k: saved["model"][k].to(device) if state["seen"] else p.detach().clone() for k, p in live.items()}
    optim = torch.optim.AdamW(live.values(), lr=peak, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    torch.manual_seed(seed + state["seen"])
    source = Sampler(torch.load(run / "pca.pt"), text.tok, [seed, state["seen"]], pool, moving=0.3)
    walks, rng = Walks(4 * size, seed + state["seen"], source), np.random.default_rng(seed + state["seen"])
    before, began = state["spent"], clock()
    step, mean, saved_at = 0, None, time.time()
    while state["spent"] < minutes:
        for g in optim.param_groups:
            g["lr"] = peak * min(1, (step + 1) / 50) * max(0.02, 1 - state["spent"] / minutes)
        x, base, shift, ids, offset = (v if isinstance(v, list) else v.to(device) for v in batch_of(source, walks, size))
        after = (base - 1 / torch.randint(5, 21, (size,), device=device)).clamp(min=0.0)
        both = contexts(text, [i.to(device) for i in ids])
        sigma = sigma_of(base, shift)
        target = guided(teacher, x, sigma, both, offset)
        made = student(x, (1000 * sigma).floor(), both[:size], offset)
        error = (made - target).pow(2).mean()
        optim.zero_grad(set_to_none=True)
        error.backward()
        torch.nn.utils.clip_grad_norm_(live.values(), 1.0)
        optim.step()
        with torch.no_grad():
            own = torch.from_numpy(rng.random(size) < 0.5).to(device).view(-1, 1, 1, 1, 1)
            change = (sigma_of(after, shift) - sigma).view(-1, 1, 1, 1, 1)
            moved = x + change * torch.where(own, made.detach(), target)
            torch._foreach_lerp_(list(ema.values()), [p.detach() for p in live.values()], 0.005)
        walks.go_on(moved[size // 2:].cpu(), after[size // 2:].cpu())
        step, state["seen"] = step + 1, state["seen"] + size
        state["spent"] = before + (clock() - began) / 60
        mean = error.item() if mean is None else 0.97 * mean + 0.03 * error.item()
        if step % 50 == 0:
            print(f"draft minutes {state['spent']:.1f} seen {state['seen']} loss {mean:.4f}", flush=True)
        if time.time() - saved_at > 60:
            save(run, state, ema, live)
            saved_at = time.time()
    save(run, state, ema, live)


def save(run, state, ema, live):
    """Writes RUN/draft.pt: trunk tensors only, `model` being the averaged ones."""
    torch.save({**state, "model": ema, "live": {k: p.detach() for k, p in live.items()}}, run / "draft.new")
    (run / "draft.new").replace(run / "draft.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 20.0)
