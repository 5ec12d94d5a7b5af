"""Trains the diffusion transformer: timed single frames first, then whole clips (with some single frames). Resumable from RUN/dit.pt.

Half of the clips begin where a scene begins, the others anywhere in its period: long clips are made of such windows.

Several processes share the work when started by torchrun (gradients are averaged); a process has one thread.
"""

import copy
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import captions
import latents
import world
from model import MAX_TOKENS, Dit, TextEncoder

SHIFT = 2.0


class Sampler:
    """Pools drawn clips (latents, cover, scene, origin in latent frames) and refreshes a few per batch; captions are always new."""

    def __init__(self, pca, tok, seed, pool, moving):
        self.pca, self.tok, self.rng = pca, tok, np.random.default_rng(seed)
        self.size, self.items, self.moving = pool, [], moving

    def clip(self):
        scene = world.sample(self.rng)
        if self.rng.random() < self.moving:
            scene = world.still(scene, motion=world.MOTIONS[int(self.rng.integers(2))])
        origin = 0 if self.rng.random() < 0.5 else int(self.rng.integers(world.PERIOD // 4))
        pictures, masks = world.render(scene, world.keys(origin))
        return latents.encode(self.pca, pictures).half(), latents.cells(masks).half(), scene, origin

    def batch(self, size, frames):
        fresh = size if len(self.items) < size else max(1, size // 6)
        for _ in range(fresh):
            if len(self.items) < self.size:
                self.items.append(self.clip())
            else:
                self.items[int(self.rng.integers(self.size))] = self.clip()
        picks = [self.items[i] for i in self.rng.integers(len(self.items), size=size)]
        texts = ["" if self.rng.random() < 0.1 else captions.caption(self.rng, p[2])[0] for p in picks]
        z, cover = torch.stack([p[0] for p in picks]).float(), torch.stack([p[1] for p in picks]).float()
        offset = torch.tensor([p[3] for p in picks])
        if frames == 1:
            one = torch.from_numpy(self.rng.integers(5, size=size))
            rows = torch.arange(size)
            z, cover = z[rows, :, one][:, :, None], cover[rows, one][:, None]
            offset = offset + one
        return z, cover, offset, torch.from_numpy(captions.encode(self.tok, texts))


def loss_of(dit, text, batch, device, channel_weight, shift):
    z, cover, offset, ids = (x.to(device) for x in batch)
    context = F.pad(text(ids), (0, 0, 0, MAX_TOKENS - ids.shape[1]))
    sigma = torch.rand(len(z), device=device)
    sigma = (shift * sigma / (1 + (shift - 1) * sigma)).clamp(1e-3, 1)
    noise = torch.randn_like(z)
    s = sigma.view(-1, 1, 1, 1, 1)
    made = dit((1 - s) * z + s * noise, (1000 * sigma).floor(), context, offset)
    weight = (1 + 4 * cover[:, None]) * channel_weight
    weight = weight / weight.mean()
    error = ((made - noise + z).pow(2) * weight).mean()
    balance = sum(b.ffn.balance for b in dit.blocks) / len(dit.blocks)
    return error, error + 0.01 * balance


def share_gradients(parameters):
    """Averages the gradients over all processes, in one message."""
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for g, part in zip(grads, flat.split([g.numel() for g in grads])):
        g.copy_(part.view_as(g))


def train(run, minutes, frames, size, peak=1.6e-3, text_share=0.2, device="cpu", seed=3, pool=3000, floor=0.0, shift=SHIFT, moving=0.0):
    """`shift` moves the noise levels seen towards pure noise; `moving` is the share of clips made to have a subject that moves sideways."""
    run, rank = Path(run), 0
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
        rank = dist.get_rank()
    pca, tok = torch.load(run / "pca.pt"), captions.load(run / "tokenizer.json")
    torch.manual_seed(seed)
    text, dit = TextEncoder(vocab_size=captions.vocabulary_size(run / "tokenizer.json")), Dit()
    text.load_state_dict(torch.load(run / "text.pt")["model"])
    state = {"frames": 0, "clips": 0, "minutes": 0.0}
    if (run / "dit.pt").exists():
        saved = torch.load(run / "dit.pt")
        dit.load_state_dict(saved["dit"])
        text.load_state_dict(saved["text"])
        state = {k: saved[k] for k in state}
    dit, text = dit.to(device), text.to(device)
    ema = copy.deepcopy(torch.nn.ModuleDict({"dit": dit, "text": text}))
    live = torch.nn.ModuleDict({"dit": dit, "text": text})
    groups = [{"params": list(dit.parameters()), "share": 1.0}]
    if text_share:
        groups.append({"params": list(text.parameters()), "share": text_share})
    else:
        text.requires_grad_(False)
    optim = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    channel = pca["latents_std"].pow(0.5).to(device)
    channel = (channel / channel.mean()).clamp(0.5, 2.0).view(-1, 1, 1, 1)
    source = Sampler(pca, tok, [seed, state["frames"] + state["clips"], rank], pool, moving)
    torch.manual_seed(seed + state["frames"] + state["clips"] + 1000003 * rank)
    turns = np.random.default_rng(seed)
    began = saved_at = time.time()
    step, mean = 0, None
    while (spent := elapsed(began)) < minutes:
        rate = min(1, (step + 1) / 100) * max(floor, 1 - spent / minutes)
        for g in optim.param_groups:
            g["lr"] = peak * rate * g["share"]
        single = frames == 1 or turns.random() < 0.5 * (1 - spent / minutes)
        count = 32 if single else size
        error, total = loss_of(dit, text, source.batch(count, 1 if single else frames), device, channel, shift)
        optim.zero_grad(set_to_none=True)
        total.backward()
        if dist.is_initialized():
            share_gradients(p for g in groups for p in g["params"])
        torch.nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 1.0)
        optim.step()
        step += 1
        state["frames" if single else "clips"] += count * (dist.get_world_size() if dist.is_initialized() else 1)
        keep = min(0.998, step / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(live.parameters()), 1 - keep)
        if single and frames > 1:
            continue
        mean = error.item() if mean is None else 0.98 * mean + 0.02 * error.item()
        if step % 50 == 0 and rank == 0:
            loads = max(float(torch.bincount(b.ffn.seen[0].flatten(), minlength=16).max() / b.ffn.seen[0].numel()) for b in dit.blocks)
            print(f"dit T={frames} minutes {spent:.1f} frames {state['frames']} clips {state['clips']} loss {mean:.4f} "
                  f"max expert share {loads:.2f}", flush=True)
        if rank == 0 and time.time() - saved_at > 60:
            save(run, ema, live, state, minutes=state["minutes"] + spent)
            saved_at = time.time()
    state["minutes"] += minutes
    if rank == 0:
        save(run, ema, live, state, minutes=state["minutes"], final=True)


def elapsed(began):
    """Minutes since `began`, the same in every process, so that all stop at the same step."""
    minutes = torch.tensor([(time.time() - began) / 60], dtype=torch.float64)
    if dist.is_initialized():
        dist.broadcast(minutes, 0)
    return float(minutes)


def save(run, ema, live, state, minutes, final=False):
    """Writes RUN/dit.pt; after a finished leg the average replaces the live weights."""
    source = ema if final else live
    data = {**state, "minutes": minutes, "dit": source["dit"].state_dict(), "text": source["text"].state_dict(),
            "ema_dit": ema["dit"].state_dict(), "ema_text": ema["text"].state_dict()}
    torch.save(data, run / "dit.new")
    (run / "dit.new").replace(run / "dit.pt")


if __name__ == "__main__":
    import sys
    torch.set_num_threads(1)
    train(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), peak=float(sys.argv[5]), text_share=float(sys.argv[6]),
          **dict(zip(("floor", "shift", "moving"), map(float, sys.argv[7:]))))
