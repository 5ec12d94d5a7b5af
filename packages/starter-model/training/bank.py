"""A bank of drawn clips in memory from which training takes crops, so that drawing does not set the pace."""

import numpy as np
import torch

import latents
import world

FRAMES = 17


class Bank:
    """Clips of 17 frames from anywhere in the world's period, drawn twice as fine, with what the encoder says of their key frames at
    either scale. Begins with a few, grows to `size`; then old ones give way to new ones."""

    def __init__(self, rng, size, pca):
        self.rng, self.size, self.pca = rng, size, pca
        self.clips = [self.draw() for _ in range(48)]

    def draw(self):
        scene, start = world.sample(self.rng), int(self.rng.integers(world.PERIOD))
        frames = tuple(range(start, start + FRAMES))
        coarse, _ = world.render(scene, frames[::4])
        fine, mask = world.render(scene, frames, 2)
        return {"pictures": ((fine + 1) * 127.5 + 0.5).astype(np.uint8), "mask": mask > 0.1,
                "coarse": latents.encode(self.pca, coarse), "fine": latents.encode(self.pca, fine[::4])}

    def pick(self):
        """A random clip: pictures uint8 [17, 160, 288, 3], mask bool, normalised latents of the key frames, coarse and fine."""
        return self.clips[self.rng.integers(len(self.clips))]

    def refresh(self):
        """Draws one more clip, or one anew."""
        if len(self.clips) < self.size:
            self.clips.append(self.draw())
        else:
            self.clips[self.rng.integers(self.size)] = self.draw()


def unit(pictures):
    """uint8 pictures to float in -1..1."""
    return torch.from_numpy(pictures.astype(np.float32) / 127.5 - 1)
