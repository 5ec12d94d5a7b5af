"""The starter world: samples scenes and renders their clips.

A clip is 17 frames at 8 fps, 80 x 144 pixels, cut from a scene that repeats after `PERIOD` frames: a subject
that leaves at one side comes back at the other, so a scene goes on for as long as anyone looks. Positions at
key frames (every fourth) lie on a 16-pixel grid, so a subject covers the same latent cells wherever it stands.
Training only.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scenery import HEIGHT, PLACES, TIMES, VARIANTS, WEATHERS, WIDTH, background, falling
from sprites import BOX, COLOURS, SUBJECTS, sprite

MOTIONS = ("left to right", "right to left", "bounces", "stays")
FRAMES, KEYS = 17, (0, 4, 8, 12, 16)
PERIOD = 48
TRACK = 4 * PERIOD  # pixels that a moving subject covers in a period: the picture and 24 pixels on either side
ATTRIBUTES = {"subject": SUBJECTS, "colour": tuple(COLOURS), "place": PLACES, "time": TIMES,
              "weather": WEATHERS, "motion": MOTIONS}
FOOT = {"ball": 72, "dog": 72, "cyclist": 74, "boat": 70, "bird": 48, "car": 72, "star": 56}
HELD_OUT = {tuple(row) for row in json.loads((Path(__file__).parent / "held_out.json").read_text(encoding="utf-8"))}
LIKELY = {"boat": "sea", "car": "city", "cyclist": "street", "dog": "beach", "bird": "meadow"}


@dataclass(frozen=True)
class Scene:
    subject: str
    colour: str
    place: str
    time: str
    weather: str
    motion: str
    variant: int = 0
    tint: tuple = (1.0, 1.0, 1.0)

    def labels(self):
        return [ATTRIBUTES[name].index(getattr(self, name)) for name in ATTRIBUTES]


def held_out(scene):
    """Whether the combination is on the written list of those never trained on, about one in twelve of all."""
    return (scene.subject, scene.colour, scene.place, scene.time, scene.weather) in HELD_OUT


def sample(rng, test=False):
    """A random scene; held-out combinations only when `test`."""
    while True:
        pick = {name: values[rng.integers(len(values))] for name, values in ATTRIBUTES.items()}
        if rng.random() < 0.2:
            pick["place"] = LIKELY.get(pick["subject"], pick["place"])
        if rng.random() < 0.15:
            pick["weather"] = "clear"
        light = 1 + rng.uniform(-0.05, 0.05)
        tint = tuple(light * (1 + rng.uniform(-0.04, 0.04, 3)))
        scene = Scene(**pick, variant=int(rng.integers(VARIANTS)), tint=tint)
        if held_out(scene) == test:
            return scene


def place_subject(scene, frame):
    """Anchor (x, y) of the subject and whether it faces left."""
    x, y, left = 72, FOOT[scene.subject], scene.motion == "right to left"
    if scene.motion == "left to right":
        x = (64 + 4 * frame) % TRACK - 24
    elif left:
        x = 168 - (64 + 4 * frame) % TRACK
    elif scene.motion == "bounces":
        y -= round(16 * (0.5 - 0.5 * np.cos(2 * np.pi * frame / 8)))
    return x, y, left


def stamp(picture, mask, cut, start, top):
    """Lays a premultiplied sprite on the picture, its upper left corner at (start, top); what lies outside is cut off."""
    size, height, width = len(cut), *mask.shape
    r0, r1 = max(top, 0), min(top + size, height)
    c0, c1 = max(start, 0), min(start + size, width)
    if c0 >= c1:
        return
    part = cut[r0 - top:r1 - top, c0 - start:c1 - start]
    area = picture[r0:r1, c0:c1]
    area *= 1 - part[..., 3:]
    area += part[..., :3]
    mask[r0:r1, c0:c1] = np.maximum(mask[r0:r1, c0:c1], part[..., 3])


def keys(origin):
    """The five key frames of a clip that begins at latent frame `origin` of the scene's period."""
    return tuple(4 * (origin + k) for k in range(len(KEYS)))


def render(scene, frames=KEYS, detail=1):
    """Pictures [n, H, W, 3] float32 in -1..1 and the subject's cover [n, H, W]; H, W = `detail` times HEIGHT, WIDTH (detail 1, 2 or 4)."""
    base = background(scene.place, scene.time, scene.weather, scene.variant, detail) * np.array(scene.tint, np.float32)
    pictures = np.repeat(base[None], len(frames), 0)
    masks = np.zeros(pictures.shape[:3], np.float32)
    still = scene.motion == "stays"
    for n, frame in enumerate(frames):
        x, y, left = place_subject(scene, frame)
        moving = not still or scene.subject in ("bird", "dog")
        picture = sprite(scene.subject, scene.colour, frame % 8 if moving else 0, left, detail)
        for at in (x - TRACK, x, x + TRACK):
            stamp(pictures[n], masks[n], picture, (at - BOX // 2) * detail, (y - (BOX - 8)) * detail)
        if scene.weather != "clear":
            veil = falling(scene.weather, frame % 4, detail)
            pictures[n] *= 1 - veil[..., 3:]
            pictures[n] += veil[..., :3]
    return np.clip(pictures / 127.5 - 1, -1, 1), masks


def still(scene, **changes):
    """The same scene with some attributes changed."""
    return replace(scene, **changes)
