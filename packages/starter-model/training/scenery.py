"""Draws the backgrounds of the starter world: five places at three times of day in three weathers.

Backgrounds are few and fixed (`VARIANTS` layouts each) so that a small model can learn them; edges sit on
the 8-pixel grid of the latent space. Nothing here knows about subjects or captions.
"""

from functools import lru_cache

import numpy as np

HEIGHT, WIDTH = 80, 144
PLACES = ("beach", "street", "meadow", "city", "sea")
TIMES = ("day", "sunset", "night")
WEATHERS = ("clear", "rain", "snow")
VARIANTS = 3

SKY = {"day": ((92, 172, 246), (190, 226, 252)), "sunset": ((110, 58, 130), (255, 142, 66)),
       "night": ((8, 10, 38), (30, 36, 84))}
GREY = {"day": (150, 162, 176), "sunset": (176, 116, 104), "night": (28, 32, 50)}
LIGHT = {"day": (1, 1, 1), "sunset": (0.86, 0.62, 0.60), "night": (0.30, 0.33, 0.52)}


class Canvas:
    """A picture in 0..255 with `detail` x `detail` pixels for each pixel of the world; shapes are given in the world's pixels."""

    def __init__(self, detail=1):
        self.detail = detail
        self.pixels = np.zeros((HEIGHT * detail, WIDTH * detail, 3), np.float32)
        self.y, self.x = (np.mgrid[0:HEIGHT * detail, 0:WIDTH * detail].astype(np.float32) + 0.5) / detail

    def soft(self, distance):
        """Coverage of a shape from its signed distance (negative inside)."""
        return np.clip(0.5 - distance * self.detail, 0, 1)

    def paint(self, cover, colour):
        self.pixels += cover[..., None] * (np.array(colour, np.float32) - self.pixels)

    def disc(self, cx, cy, radius, colour):
        self.paint(self.soft(np.hypot(self.x - cx, self.y - cy) - radius), colour)

    def box(self, x0, y0, x1, y1, colour):
        self.paint(self.soft(np.maximum(np.abs(self.x - (x0 + x1) / 2) - (x1 - x0) / 2,
                                        np.abs(self.y - (y0 + y1) / 2) - (y1 - y0) / 2)), colour)


def sky(canvas, time, weather, variant):
    top, low = (np.array(c, np.float32) for c in SKY[time])
    mix = np.clip(canvas.y / 48, 0, 1)[..., None]
    canvas.pixels[:] = top * (1 - mix) + low * mix
    sun_x = (24, 72, 120)[variant]
    if weather != "clear":
        canvas.pixels[:] = 0.35 * canvas.pixels + 0.65 * np.array(GREY[time], np.float32)
        cloud = np.array(GREY[time], np.float32) * 0.72
        for cx, r in ((16, 13), (44, 10), (72, 14), (100, 11), (128, 13)):
            canvas.disc(cx, 0, r, cloud)
        return
    if time == "day":
        canvas.disc(sun_x, 14, 9, (255, 236, 110))
        for cx, cy in ((sun_x + 56) % 160 - 8, 12), ((sun_x + 100) % 160 - 8, 18):
            for dx, r in ((-9, 5), (0, 7), (9, 5)):
                canvas.disc(cx + dx, cy, r, (255, 255, 255))
    elif time == "sunset":
        canvas.disc(sun_x, 32, 13, (255, 226, 120))
    else:
        canvas.disc(sun_x, 14, 9, (246, 244, 214))
        canvas.disc(sun_x + 4, 11, 7.5, np.array(SKY["night"][0]) + 6)
        for k in range(14):
            canvas.disc((k * 37 + 50 * variant) % WIDTH, 4 + (k * 23) % 34, 1.1, (250, 250, 230))


def tree(canvas, x, foot, lit):
    canvas.box(x - 2, foot - 14, x + 2, foot, np.array((104, 70, 42)) * lit)
    for dx, dy, r in ((0, -24, 10), (-7, -17, 7), (7, -17, 7)):
        canvas.disc(x + dx, foot + dy, r, np.array((30, 120, 48)) * lit)


def beach(canvas, lit, night, variant):
    canvas.box(-9, 40, 153, 56, np.array((30, 130, 190)) * lit)
    shore = 53 + 1.5 * np.sin(canvas.x / 11 + variant * 2)
    canvas.paint(canvas.soft(shore - 1.5 - canvas.y), np.array((245, 250, 250)) * lit)
    canvas.paint(canvas.soft(shore + 1.5 - canvas.y), np.array((250, 226, 176)) * lit)
    x, trunk = (12, 132, 132)[variant], np.array((122, 86, 52)) * lit
    lean = 6 if x < 72 else -6
    canvas.paint(np.where((canvas.y > 20) & (canvas.y < 64), canvas.soft(np.abs(canvas.x - x - lean * ((64 - canvas.y) / 44) ** 2) - 2), 0), trunk)
    for angle in (-0.3, 0.5, 2.6, 3.5, 1.4):
        for r in range(2, 17):
            canvas.disc(x + lean + r * np.cos(angle), 20 - r * np.sin(angle) * 0.6 + r * r * 0.035, 2.2,
                 np.array((34, 140, 60)) * lit)


def street(canvas, lit, night, variant):
    walls = ((236, 178, 140), (200, 214, 170), (226, 205, 150), (190, 190, 220))
    for k in range(4):
        x, wall = k * 40 - 8, walls[(k + variant) % 4]
        canvas.box(x, 28, x + 32, 58, np.array(wall) * lit)
        roof = canvas.soft(np.maximum(np.abs(canvas.x - x - 16) - 1.25 * (canvas.y - 14), canvas.y - 28))
        canvas.paint(roof, np.array((150, 62, 52)) * lit)
        pane = (255, 222, 120) if night else np.array((120, 160, 190)) * lit
        for dx in (8, 24):
            canvas.box(x + dx - 3, 33, x + dx + 3, 41, pane)
        canvas.box(x + 12, 45, x + 20, 58, np.array((110, 70, 50)) * lit)
        if k < 3:
            tree(canvas, x + 36, 58, lit)
    canvas.box(-9, 56, 153, 60, np.array((196, 190, 184)) * lit)
    canvas.box(-9, 60, 153, 90, np.array((112, 112, 120)) * lit)
    for k in range(5):
        canvas.box(k * 32 - 4, 74, k * 32 + 12, 76.5, np.array((240, 236, 220)) * lit)


def meadow(canvas, lit, night, variant):
    far = 42 + 7 * np.sin(canvas.x / 26 + variant * 2.1)
    canvas.paint(canvas.soft(far - canvas.y), np.array((96, 176, 92)) * lit)
    near = 54 + 3 * np.sin(canvas.x / 19 + 1 + variant)
    canvas.paint(canvas.soft(near - canvas.y), np.array((120, 204, 84)) * lit)
    for x in ((16, 130), (128, 104), (20, 44))[variant]:
        tree(canvas, x, 56, lit)
    for k in range(10):
        canvas.disc(8 + k * 15, 64 + (k * 7) % 13, 1.8, np.array(((255, 255, 255), (255, 232, 80), (255, 150, 190))[k % 3]) * lit)


def city(canvas, lit, night, variant):
    heights = ((40, 16, 32, 8, 24, 40, 8, 32, 16), (16, 32, 8, 40, 16, 8, 32, 24, 40), (24, 8, 40, 24, 8, 32, 16, 40, 8))
    tones = ((108, 124, 150), (86, 100, 128), (132, 138, 156))
    for k, top in enumerate(heights[variant]):
        x = k * 16
        canvas.box(x, top, x + 16, 60, np.array(tones[k % 3]) * (lit if not night else lit * 0.9))
        neon = ((255, 226, 110), (90, 232, 255), (255, 110, 220))[k % 3]
        for row in range(top + 4, 56, 8):
            for column in (4, 12):
                on = (row // 8 + column // 4 + k) % 3 != 0
                pane = neon if night and on else np.array((190, 214, 230)) * lit * (0.8 if on else 1)
                canvas.box(x + column - 2, row - 2, x + column + 2, row + 2, pane)
    canvas.box(-9, 58, 153, 90, np.array((74, 76, 86)) * (lit if not night else lit * 1.3))
    for k in range(5):
        canvas.box(k * 32 - 4, 74, k * 32 + 12, 76.5, np.array((236, 214, 110)) * np.maximum(lit, 0.6))


def sea(canvas, lit, night, variant):
    deep = np.clip((canvas.y - 40) / 40, 0, 1)[..., None]
    water = (np.array((52, 150, 214)) * (1 - deep) + np.array((14, 78, 158)) * deep) * lit
    canvas.pixels += canvas.soft(40 - canvas.y)[..., None] * (water - canvas.pixels)
    for k, y in enumerate((46, 54, 62, 70, 77)):
        crest = canvas.soft(np.abs(canvas.y - y - 1.5 * np.sin(canvas.x / 5 + k * 1.7)) - 0.9) * (np.sin(canvas.x / 9 + k * 2.4 + variant) > -0.2)
        canvas.paint(crest * 0.7, np.array((214, 236, 250)) * np.maximum(lit, 0.45))
    if variant < 2:
        x = (16, 128)[variant]
        canvas.disc(x, 46, 11, np.array((92, 96, 92)) * lit)
        canvas.box(-9, 42, 40 * 4, 44, np.array((52, 150, 214)) * lit)
        canvas.box(x - 3, 16, x + 3, 38, np.array((240, 90, 80)) * np.maximum(lit, 0.5))
        canvas.box(x - 4, 12, x + 4, 17, (255, 240, 150) if night else (250, 250, 250))


DRAW = {"beach": beach, "street": street, "meadow": meadow, "city": city, "sea": sea}


def whiten(canvas, before, place, time):
    """Lays snow: everything that is not sky moves to white; water keeps most of its colour."""
    changed = (np.abs(canvas.pixels - before).sum(-1) > 6).astype(np.float32)
    amount = np.where(canvas.y > 56, 0.72, 0.38) if place != "sea" else np.where(canvas.y > 40, 0.28, 0.3)
    if place == "beach":
        amount = np.where((canvas.y > 40) & (canvas.y < 52), 0.2, amount)
    white = np.array((240, 246, 252)) * np.maximum(np.array(LIGHT[time]), 0.42)
    canvas.paint(changed * amount, white)


@lru_cache(maxsize=512)
def background(place, time, weather, variant, detail=1):
    """[HEIGHT * detail, WIDTH * detail, 3] float32 in 0..255."""
    canvas = Canvas(detail)
    sky(canvas, time, weather, variant)
    before = canvas.pixels.copy()
    DRAW[place](canvas, np.array(LIGHT[time], np.float32), time == "night", variant)
    if weather == "rain":
        canvas.pixels *= 0.8
    if weather == "snow":
        whiten(canvas, before, place, time)
    return canvas.pixels


@lru_cache(maxsize=32)
def falling(weather, phase, detail=1):
    """Premultiplied RGBA overlay of rain or snow, period 4 frames (so key frames agree)."""
    canvas = Canvas(detail)
    overlay = np.zeros((*canvas.pixels.shape[:2], 4), np.float32)
    if weather == "clear":
        return overlay
    for column in range(9):
        for row in range(-1, 4):
            x, y = column * 16 + 8, row * 32 + (column * 5 % 4) * 8 + phase * 8
            if weather == "rain":
                px, along = canvas.x - x + (canvas.y - y) * 0.35, np.abs(canvas.y - y) - 6
                cover, colour = canvas.soft(np.maximum(np.abs(px) - 1.0, along)) * 0.8, (200, 222, 255)
            else:
                sway = 2 * np.sin(np.pi * phase / 2)
                cover, colour = canvas.soft(np.hypot(canvas.x - x - sway, canvas.y - y) - 2.6), (255, 255, 255)
            for c in range(3):
                overlay[..., c] = overlay[..., c] * (1 - cover) + colour[c] * cover
            overlay[..., 3] = overlay[..., 3] * (1 - cover) + cover
    return overlay
