"""Draws the seven subjects of the starter world as anti-aliased RGBA sprites.

Exists so that `world.py` can compose clips from cached pictures. Coordinates are pixels with the
origin at the sprite's anchor (middle of the foot line, y up negative); nothing here knows about
scenes, captions or training.
"""

from functools import lru_cache

import numpy as np

SUBJECTS = ("ball", "dog", "cyclist", "boat", "bird", "car", "star")
COLOURS = {
    "red": (226, 38, 38),
    "golden": (255, 196, 26),
    "green": (36, 186, 60),
    "blue": (36, 92, 240),
    "purple": (150, 56, 214),
    "pink": (255, 120, 190),
    "white": (250, 250, 250),
    "black": (30, 30, 34),
}
BOX = 64  # a sprite is BOX x BOX pixels, anchored at (BOX / 2, BOX - 8)
SCALE = 4  # supersampling


class Pen:
    """A supersampled RGBA canvas; later shapes cover earlier ones."""

    def __init__(self):
        size = BOX * SCALE
        self.rgba = np.zeros((size, size, 4), np.float32)
        axis = (np.arange(size, dtype=np.float32) + 0.5) / SCALE
        self.x = axis[None, :] - BOX / 2
        self.y = axis[:, None] - (BOX - 8)

    def fill(self, inside, colour):
        self.rgba[inside] = (*colour, 255.0)

    def ellipse(self, cx, cy, rx, ry, colour):
        self.fill(((self.x - cx) / rx) ** 2 + ((self.y - cy) / ry) ** 2 <= 1, colour)

    def line(self, x0, y0, x1, y1, width, colour):
        dx, dy = x1 - x0, y1 - y0
        along = ((self.x - x0) * dx + (self.y - y0) * dy) / max(dx * dx + dy * dy, 1e-6)
        along = np.clip(along, 0, 1)
        distance = (self.x - x0 - along * dx) ** 2 + (self.y - y0 - along * dy) ** 2
        self.fill(distance <= (width / 2) ** 2, colour)

    def polygon(self, points, colour):
        inside = np.zeros(np.broadcast_shapes(self.x.shape, self.y.shape), bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
            if y0 == y1:
                continue
            crosses = (self.y < y0) != (self.y < y1)
            inside ^= crosses & (self.x < (x1 - x0) * (self.y - y0) / (y1 - y0) + x0)
        self.fill(inside, colour)

    def done(self, outline, detail):
        """Adds an outline of about 1.5 px and reduces to [BOX * detail, BOX * detail, 4] float, alpha 0..1."""
        solid = self.rgba[..., 3] > 0
        grown = solid.copy()
        for _ in range(6):
            step = grown.copy()
            step[1:] |= grown[:-1]
            step[:-1] |= grown[1:]
            step[:, 1:] |= grown[:, :-1]
            step[:, :-1] |= grown[:, 1:]
            grown = step
        self.rgba[grown & ~solid] = (*outline, 255.0)
        alpha = self.rgba[..., 3:] / 255.0
        packed = np.concatenate([self.rgba[..., :3] * alpha, alpha], -1)
        return packed.reshape(BOX * detail, SCALE // detail, BOX * detail, SCALE // detail, 4).mean((1, 3))


def shade(colour, factor):
    return tuple(np.clip(np.array(colour, np.float32) * factor, 0, 255))


def ball(pen, colour, phase):
    pen.ellipse(0, -17, 17, 17, colour)
    for k in range(3):
        turn = 2 * np.pi * (phase / 12 + k / 3)
        pen.line(0, -17, 14 * np.cos(turn), -17 + 14 * np.sin(turn), 3, shade(colour, 0.55))
    pen.ellipse(-6, -24, 4, 3, (255, 255, 255))


def dog(pen, colour, phase):
    dark, swing = shade(colour, 0.72), np.cos(2 * np.pi * phase / 8)
    for x, sign, tone in ((-15, 1, dark), (10, -1, dark), (-11, -1, colour), (14, 1, colour)):
        pen.line(x, -14, x + 6 * sign * swing, -3, 6, tone)
    pen.line(-20, -24, -28, -34 - 3 * swing, 5, colour)
    pen.ellipse(-1, -20, 22, 9.5, colour)
    pen.line(14, -24, 19, -32, 11, colour)
    pen.ellipse(20, -36, 9, 8.5, colour)
    pen.ellipse(28, -33, 6.5, 4.5, colour)
    pen.ellipse(33, -35, 2.5, 2.2, (20, 16, 16))
    pen.ellipse(14, -34, 4, 8, dark)
    pen.ellipse(22, -38, 2, 2.4, (15, 15, 20))


def wheel(pen, cx, radius, phase):
    pen.ellipse(cx, -radius, radius, radius, (28, 28, 32))
    pen.ellipse(cx, -radius, radius * 0.62, radius * 0.62, (205, 205, 212))
    for k in range(2):
        turn = np.pi * (phase / 8 + k / 2)
        dx, dy = radius * 0.6 * np.cos(turn), radius * 0.6 * np.sin(turn)
        pen.line(cx - dx, -radius - dy, cx + dx, -radius + dy, 1.6, (60, 60, 66))


def cyclist(pen, colour, phase):
    wheel(pen, -17, 12, phase)
    wheel(pen, 17, 12, phase)
    for line in ((-17, -12, -5, -27), (-17, -12, 1, -12), (1, -12, -5, -27), (1, -12, 13, -28),
                 (-5, -27, 13, -28), (13, -30, 17, -12)):
        pen.line(*line, 4, colour)
    turn = 2 * np.pi * phase / 8
    foot = (1 + 5 * np.cos(turn), -11 + 5 * np.sin(turn))
    pen.line(-5, -31, 5, -23, 5, (44, 52, 84))
    pen.line(5, -23, *foot, 4.5, (44, 52, 84))
    pen.line(13, -33, 17, -34, 3, (40, 40, 44))
    pen.line(-5, -32, 3, -43, 9, colour)
    pen.line(4, -42, 14, -34, 3.5, (240, 190, 150))
    pen.ellipse(7, -50, 5.5, 5.5, (240, 190, 150))
    pen.ellipse(6, -53, 6, 3.5, shade(colour, 0.7))


def boat(pen, colour, phase):
    pen.line(0, -12, 0, -52, 2.6, (96, 66, 44))
    pen.polygon([(3, -50), (3, -18), (22, -18)], (252, 248, 236))
    pen.polygon([(-3, -44), (-3, -18), (-17, -18)], (236, 228, 210))
    pen.polygon([(0, -54), (0, -48), (-9, -51)], colour)
    pen.polygon([(-28, -15), (29, -15), (20, 0), (-20, 0)], colour)
    pen.polygon([(-28, -15), (29, -15), (27, -11), (-26, -11)], shade(colour, 0.65))


def bird(pen, colour, phase):
    flap = np.cos(2 * np.pi * phase / 8)
    dark = shade(colour, 0.68)
    pen.polygon([(-16, -16), (-30, -22), (-29, -10)], dark)
    pen.ellipse(0, -16, 19, 9.5, colour)
    pen.ellipse(17, -23, 8.5, 8, colour)
    pen.polygon([(24, -26), (24, -19), (33, -21)], (255, 150, 20))
    pen.ellipse(19, -25, 2.2, 2.4, (15, 15, 20))
    tip = -17 - 22 * flap
    pen.polygon([(-11, -18), (8, -18), (-4, tip), (-14, tip + 4 * flap)], dark)


def car(pen, colour, phase):
    pen.polygon([(-18, -22), (-11, -35), (11, -35), (20, -22)], colour)
    pen.polygon([(-13, -23), (-8.5, -32), (-1, -32), (-1, -23)], (176, 220, 244))
    pen.polygon([(2, -23), (2, -32), (9, -32), (15, -23)], (176, 220, 244))
    pen.polygon([(-29, -22), (25, -22), (30, -18), (30, -7), (-29, -7)], colour)
    pen.line(-27, -9, 28, -9, 2.5, shade(colour, 0.6))
    wheel(pen, -16, 7.5, phase)
    wheel(pen, 17, 7.5, phase)
    pen.ellipse(28, -16, 2.4, 3, (255, 240, 150))


def star(pen, colour, phase):
    points = []
    for k in range(10):
        radius = 24 if k % 2 == 0 else 10.5
        angle = np.pi * k / 5 - np.pi / 2
        points.append((radius * np.cos(angle), -23 + radius * np.sin(angle)))
    pen.polygon(points, colour)
    pen.polygon([(0.55 * x, -23 + 0.55 * (y + 23)) for x, y in points],
                tuple(np.array(colour) * 0.5 + 127))


DRAW = {"ball": ball, "dog": dog, "cyclist": cyclist, "boat": boat, "bird": bird, "car": car, "star": star}


@lru_cache(maxsize=4096)
def sprite(subject, colour, phase, left, detail=1):
    """Premultiplied RGBA sprite [BOX * detail, BOX * detail, 4] float32 (alpha 0..1); `left` mirrors it; detail 1, 2 or 4."""
    pen = Pen()
    DRAW[subject](pen, COLOURS[colour], phase)
    outline = (235, 235, 240) if colour == "black" else (26, 22, 30)
    picture = pen.done(outline, detail)
    return np.ascontiguousarray(picture[:, ::-1] if left else picture)
