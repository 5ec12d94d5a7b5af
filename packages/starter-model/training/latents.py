"""The fixed linear encoder: principal components of 8x8 patches on key frames. Training only."""

import numpy as np
import torch

import world

CHANNELS = 24


def patches(pictures):
    """[n, 80, 144, 3] to [n, 10, 18, 192]; order (channel, row, column), as pixel shuffle wants."""
    n, h, w, _ = pictures.shape
    return pictures.reshape(n, h // 8, 8, w // 8, 8, 3).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 8, w // 8, 192)


def fit(seed=0, clips=1500):
    """Components, mean and latent statistics; patches under a subject count five times."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(clips):
        pictures, masks = world.render(world.sample(rng), (int(rng.integers(17)),))
        flat = patches(pictures).reshape(-1, 192)
        busy = masks.reshape(1, 10, 8, 18, 8).max((2, 4)).reshape(-1) > 0
        rows.append(flat[rng.random(len(flat)) < np.where(busy, 1.0, 0.2)])
    data = np.concatenate(rows).astype(np.float64)
    mean = data.mean(0)
    values, vectors = np.linalg.eigh(np.cov((data - mean).T))
    basis = vectors[:, ::-1][:, :CHANNELS]
    coded = (data - mean) @ basis
    return {"mean": torch.tensor(mean).float(), "basis": torch.tensor(basis.copy()).float(),
            "latents_mean": torch.tensor(coded.mean(0)).float(), "latents_std": torch.tensor(coded.std(0)).float(),
            "explained": float(values[::-1][:CHANNELS].sum() / values.sum())}


def encode(pca, pictures):
    """Key pictures [n, 80, 144, 3] (numpy, -1..1) to normalised latents [24, n, 10, 18]."""
    z = (torch.from_numpy(np.ascontiguousarray(patches(pictures))) - pca["mean"]) @ pca["basis"]
    return ((z - pca["latents_mean"]) / pca["latents_std"]).permute(3, 0, 1, 2)


def cells(masks):
    """Subject cover [n, 80, 144] to [n, 10, 18] in 0..1."""
    return torch.from_numpy(masks.reshape(len(masks), 10, 8, 18, 8).max((2, 4)))
