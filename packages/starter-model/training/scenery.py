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
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) + 0.5


def soft(distance):
    """Coverage of a shape from its signed distance in pixels (negative inside)."""
    return np.clip(0.5 - distance, 0, 1)


def paint(picture, cover, colour):
    picture += cover[..., None] * (np.array(colour, np.float32) - picture)


def disc(picture, cx, cy, radius, colour):
    paint(picture, soft(np.hypot(X - cx, Y - cy) - radius), colour)


def box(picture, x0, y0, x1, y1, colour):
    paint(picture, soft(np.maximum(np.abs(X - (x0 + x1) / 2) - (x1 - x0) / 2,
                                   np.abs(Y - (y0 + y1) / 2) - (y1 - y0) / 2)), colour)


def sky(time, weather, variant):
    top, low = (np.array(c, np.float32) for c in SKY[time])
    mix = np.clip(Y / 48, 0, 1)[..., None]
    picture = top * (1 - mix) + low * mix
    sun_x = (24, 72, 120)[variant]
    if weather != "clear":
        picture = 0.35 * picture + 0.65 * np.array(GREY[time], np.float32)
        cloud = np.array(GREY[time], np.float32) * 0.72
        for cx, r in ((16, 13), (44, 10), (72, 14), (100, 11), (128, 13)):
            disc(picture, cx, 0, r, cloud)
        return picture
    if time == "day":
        disc(picture, sun_x, 14, 9, (255, 236, 110))
        for cx, cy in ((sun_x + 56) % 160 - 8, 12), ((sun_x + 100) % 160 - 8, 18):
            for dx, r in ((-9, 5), (0, 7), (9, 5)):
                disc(picture, cx + dx, cy, r, (255, 255, 255))
    elif time == "sunset":
        disc(picture, sun_x, 32, 13, (255, 226, 120))
    else:
        disc(picture, sun_x, 14, 9, (246, 244, 214))
        disc(picture, sun_x + 4, 11, 7.5, np.array(SKY["night"][0]) + 6)
        for k in range(14):
            disc(picture, (k * 37 + 50 * variant) % WIDTH, 4 + (k * 23) % 34, 1.1, (250, 250, 230))
    return picture


def tree(picture, x, foot, lit):
    box(picture, x - 2, foot - 14, x + 2, foot, np.array((104, 70, 42)) * lit)
    for dx, dy, r in ((0, -24, 10), (-7, -17, 7), (7, -17, 7)):
        disc(picture, x + dx, foot + dy, r, np.array((30, 120, 48)) * lit)


def beach(picture, lit, night, variant):
    box(picture, -9, 40, 153, 56, np.array((30, 130, 190)) * lit)
    shore = 53 + 1.5 * np.sin(X / 11 + variant * 2)
    paint(picture, soft(shore - 1.5 - Y), np.array((245, 250, 250)) * lit)
    paint(picture, soft(shore + 1.5 - Y), np.array((250, 226, 176)) * lit)
    x, trunk = (12, 132, 132)[variant], np.array((122, 86, 52)) * lit
    lean = 6 if x < 72 else -6
    paint(picture, np.where((Y > 20) & (Y < 64), soft(np.abs(X - x - lean * ((64 - Y) / 44) ** 2) - 2), 0), trunk)
    for angle in (-0.3, 0.5, 2.6, 3.5, 1.4):
        for r in range(2, 17):
            disc(picture, x + lean + r * np.cos(angle), 20 - r * np.sin(angle) * 0.6 + r * r * 0.035, 2.2,
                 np.array((34, 140, 60)) * lit)


def street(picture, lit, night, variant):
    walls = ((236, 178, 140), (200, 214, 170), (226, 205, 150), (190, 190, 220))
    for k in range(4):
        x, wall = k * 40 - 8, walls[(k + variant) % 4]
        box(picture, x, 28, x + 32, 58, np.array(wall) * lit)
        roof = soft(np.maximum(np.abs(X - x - 16) - 1.25 * (Y - 14), Y - 28))
        paint(picture, roof, np.array((150, 62, 52)) * lit)
        pane = (255, 222, 120) if night else np.array((120, 160, 190)) * lit
        for dx in (8, 24):
            box(picture, x + dx - 3, 33, x + dx + 3, 41, pane)
        box(picture, x + 12, 45, x + 20, 58, np.array((110, 70, 50)) * lit)
        if k < 3:
            tree(picture, x + 36, 58, lit)
    box(picture, -9, 56, 153, 60, np.array((196, 190, 184)) * lit)
    box(picture, -9, 60, 153, 90, np.array((112, 112, 120)) * lit)
    for k in range(5):
        box(picture, k * 32 - 4, 74, k * 32 + 12, 76.5, np.array((240, 236, 220)) * lit)


def meadow(picture, lit, night, variant):
    far = 42 + 7 * np.sin(X / 26 + variant * 2.1)
    paint(picture, soft(far - Y), np.array((96, 176, 92)) * lit)
    near = 54 + 3 * np.sin(X / 19 + 1 + variant)
    paint(picture, soft(near - Y), np.array((120, 204, 84)) * lit)
    for x in ((16, 130), (128, 104), (20, 44))[variant]:
        tree(picture, x, 56, lit)
    for k in range(10):
        disc(picture, 8 + k * 15, 64 + (k * 7) % 13, 1.8, np.array(((255, 255, 255), (255, 232, 80), (255, 150, 190))[k % 3]) * lit)


def city(picture, lit, night, variant):
    heights = ((40, 16, 32, 8, 24, 40, 8, 32, 16), (16, 32, 8, 40, 16, 8, 32, 24, 40), (24, 8, 40, 24, 8, 32, 16, 40, 8))
    tones = ((108, 124, 150), (86, 100, 128), (132, 138, 156))
    for k, top in enumerate(heights[variant]):
        x = k * 16
        box(picture, x, top, x + 16, 60, np.array(tones[k % 3]) * (lit if not night else lit * 0.9))
        neon = ((255, 226, 110), (90, 232, 255), (255, 110, 220))[k % 3]
        for row in range(top + 4, 56, 8):
            for column in (4, 12):
                on = (row // 8 + column // 4 + k) % 3 != 0
                pane = neon if night and on else np.array((190, 214, 230)) * lit * (0.8 if on else 1)
                box(picture, x + column - 2, row - 2, x + column + 2, row + 2, pane)
    box(picture, -9, 58, 153, 90, np.array((74, 76, 86)) * (lit if not night else lit * 1.3))
    for k in range(5):
        box(picture, k * 32 - 4, 74, k * 32 + 12, 76.5, np.array((236, 214, 110)) * np.maximum(lit, 0.6))


def sea(picture, lit, night, variant):
    deep = np.clip((Y - 40) / 40, 0, 1)[..., None]
    water = (np.array((52, 150, 214)) * (1 - deep) + np.array((14, 78, 158)) * deep) * lit
    picture += soft(40 - Y)[..., None] * (water - picture)
    for k, y in enumerate((46, 54, 62, 70, 77)):
        crest = soft(np.abs(Y - y - 1.5 * np.sin(X / 5 + k * 1.7)) - 0.9) * (np.sin(X / 9 + k * 2.4 + variant) > -0.2)
        paint(picture, crest * 0.7, np.array((214, 236, 250)) * np.maximum(lit, 0.45))
    if variant < 2:
        x = (16, 128)[variant]
        disc(picture, x, 46, 11, np.array((92, 96, 92)) * lit)
        box(picture, -9, 42, 40 * 4, 44, np.array((52, 150, 214)) * lit)
        box(picture, x - 3, 16, x + 3, 38, np.array((240, 90, 80)) * np.maximum(lit, 0.5))
        box(picture, x - 4, 12, x + 4, 17, (255, 240, 150) if night else (250, 250, 250))


DRAW = {"beach": beach, "street": street, "meadow": meadow, "city": city, "sea": sea}


def whiten(picture, before, place, time):
    """Lays snow: everything that is not sky moves to white; water keeps most of its colour."""
    changed = (np.abs(picture - before).sum(-1) > 6).astype(np.float32)
    amount = np.where(Y > 56, 0.72, 0.38) if place != "sea" else np.where(Y > 40, 0.28, 0.3)
    if place == "beach":
        amount = np.where((Y > 40) & (Y < 52), 0.2, amount)
    white = np.array((240, 246, 252)) * np.maximum(np.array(LIGHT[time]), 0.42)
    paint(picture, changed * amount, white)


@lru_cache(maxsize=256)
def background(place, time, weather, variant):
    """[HEIGHT, WIDTH, 3] float32 in 0..255."""
    picture = sky(time, weather, variant)
    before = picture.copy()
    DRAW[place](picture, np.array(LIGHT[time], np.float32), time == "night", variant)
    if weather == "rain":
        picture[:] = picture * 0.8
    if weather == "snow":
        whiten(picture, before, place, time)
    return picture.astype(np.float32)


@lru_cache(maxsize=16)
def falling(weather, phase):
    """Premultiplied RGBA overlay of rain or snow, period 4 frames (so key frames agree)."""
    overlay = np.zeros((HEIGHT, WIDTH, 4), np.float32)
    if weather == "clear":
        return overlay
    for column in range(9):
        for row in range(-1, 4):
            x, y = column * 16 + 8, row * 32 + (column * 5 % 4) * 8 + phase * 8
            if weather == "rain":
                px, along = X - x + (Y - y) * 0.35, np.abs(Y - y) - 6
                cover, colour = soft(np.maximum(np.abs(px) - 1.0, along)) * 0.8, (200, 222, 255)
            else:
                sway = 2 * np.sin(np.pi * phase / 2)
                cover, colour = soft(np.hypot(X - x - sway, Y - y) - 2.6), (255, 255, 255)
            for c in range(3):
                overlay[..., c] = overlay[..., c] * (1 - cover) + colour[c] * cover
            overlay[..., 3] = overlay[..., 3] * (1 - cover) + cover
    return overlay
