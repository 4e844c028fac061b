"""Simple landscapes in the house style: a sky, a ground, and a few coloured things that can be counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from drawing import COLOURS, INK, Pen, mix
from PIL import Image

SKIES = {  # name: top, horizon
    "day": ("#6db7e8", "#dff1fb"),
    "night": ("#0c1536", "#2c3f74"),
    "sunset": ("#f0793d", "#fbd98f"),
    "storm": ("#4b555f", "#97a2aa"),
}
GROUNDS = {
    "sea": ("#2c7fb0", "#14507c"),
    "meadow": ("#8cc466", "#5d9a43"),
    "beach": ("#f0dca4", "#dcbf7a"),
    "snow": ("#fafcff", "#dbe6ef"),
}
THINGS = ("boat", "house", "tree", "lighthouse", "bird", "fish", "flower", "cloud")
HORIZON = 0.58


def scene(
    things: Sequence[tuple[int, str, str]],
    *,
    sky: str = "day",
    ground: str = "sea",
    rng: Random,
    size: tuple[int, int] = (640, 480),
    drift: float = 0.0,
) -> Image.Image:
    """things: (count, colour, thing of THINGS); drift moves the boats and birds, in heights, for a film."""
    pen = Pen(size)
    pen.wash(*SKIES[sky], 0, HORIZON)
    pen.wash(*GROUNDS[ground], HORIZON, 1.0)
    _weather(pen, sky, rng)
    if ground == "sea":
        for _ in range(9):
            x, y = rng.uniform(0, pen.right), rng.uniform(HORIZON + 0.05, 0.97)
            pen.line([(x, y), (x + 0.08, y - 0.012), (x + 0.16, y)], mix(GROUNDS["sea"][0], "#ffffff", 0.35), 0.008)
    total = sum(count for count, _, thing in things if thing not in ("bird", "cloud", "fish"))
    slot, air = 0, 0
    for count, colour, thing in things:
        for n in range(count):
            if thing in ("bird", "cloud"):
                x = pen.left + 0.2 + 0.62 * (air % 4) / 3 + rng.uniform(-0.03, 0.03) + drift
                place(pen, thing, colour, x, 0.2 + 0.14 * ((air + air // 4) % 2) + rng.uniform(-0.03, 0.03), rng, sky, ground)
                air += 1
            elif thing == "fish":
                x = pen.left + 0.18 + 0.6 * (n + 0.5) / count + rng.uniform(-0.04, 0.04)
                place(pen, thing, colour, x, rng.uniform(0.8, 0.9), rng, sky, ground)
            else:
                x = pen.left + (slot + 0.5) / total + rng.uniform(-0.02, 0.02) + (drift if thing == "boat" else 0)
                place(pen, thing, colour, x, HORIZON + rng.uniform(0.05, 0.1), rng, sky, ground, 1.0 if total < 4 else 0.8)
                slot += 1
    return pen.done()


def _weather(pen: Pen, sky: str, rng: Random) -> None:
    x = pen.left + rng.choice([0.2, 0.8])
    if sky == "day":
        pen.disc(x, 0.16, 0.085, "#ffd83a")
    elif sky == "sunset":
        pen.disc(pen.right / 2, HORIZON - 0.04, 0.14, "#ff5a2a")
        pen.box(0, HORIZON, pen.right, HORIZON + 0.11, mix("#f0793d", "#14507c", 0.5))
    elif sky == "night":
        pen.disc(x, 0.16, 0.075, "#f5f1d6")
        pen.disc(x + 0.035, 0.145, 0.065, mix(*SKIES["night"], 0.25))
        for _ in range(16):
            pen.disc(rng.uniform(0, pen.right), rng.uniform(0.02, 0.5), 0.007, "#ffffff")
    else:
        for _ in range(26):
            a, b = rng.uniform(0, pen.right), rng.uniform(0, 0.9)
            pen.line([(a, b), (a - 0.025, b + 0.08)], "#d4e3ee", 0.007)


def place(pen: Pen, thing: str, colour: str, x: float, y: float, rng: Random, sky: str, ground: str, s: float = 1.0) -> None:  # noqa: C901 - one branch a thing
    paint = COLOURS[colour]
    if thing == "boat":
        y += 0.06
        pen.line([(x, y), (x, y - 0.27 * s)], "#5b4632", 0.012)
        pen.shape([(x + 0.012, y - 0.26 * s), (x + 0.012, y - 0.05 * s), (x + 0.13 * s, y - 0.05 * s)], "#fbfbf8")
        pen.shape(
            [(x - 0.012, y - 0.2 * s), (x - 0.012, y - 0.05 * s), (x - 0.085 * s, y - 0.05 * s)], mix(paint, "#ffffff", 0.5)
        )
        pen.shape(
            [(x - 0.16 * s, y - 0.03), (x + 0.16 * s, y - 0.03), (x + 0.11 * s, y + 0.055 * s), (x - 0.11 * s, y + 0.055 * s)],
            paint,
        )
    elif thing == "house":
        w = 0.12 * s
        pen.box(x - w, y - 0.17 * s, x + w, y + 0.05, paint)
        pen.shape(
            [(x - w - 0.03, y - 0.16 * s), (x, y - 0.31 * s), (x + w + 0.03, y - 0.16 * s)],
            "#5a3a31" if colour != "brown" else "#2f2a2a",
        )
        pen.box(x - 0.025, y - 0.05, x + 0.025, y + 0.05, INK)
        for dx in (-0.075, 0.075):
            pen.box(x + (dx - 0.022) * s, y - 0.12 * s, x + (dx + 0.022) * s, y - 0.06 * s, "#ffe9a3")
    elif thing == "tree":
        pen.box(x - 0.018, y - 0.12 * s, x + 0.018, y + 0.05, "#6f4a2f")
        for k in range(3):
            pen.shape(
                [
                    (x - (0.12 - 0.025 * k) * s, y - (0.06 + 0.09 * k) * s),
                    (x + (0.12 - 0.025 * k) * s, y - (0.06 + 0.09 * k) * s),
                    (x, y - (0.21 + 0.09 * k) * s),
                ],
                paint,
            )
    elif thing == "lighthouse":
        top = y - 0.4 * s
        if sky in ("night", "storm"):
            pen.shape([(x, top - 0.03), (x + 0.6, top - 0.16), (x + 0.6, top + 0.08)], mix(SKIES[sky][0], "#ffe88a", 0.45))
        pen.shape([(x - 0.045 * s, top), (x + 0.045 * s, top), (x + 0.075 * s, y + 0.05), (x - 0.075 * s, y + 0.05)], "#fbfbf8")
        for k in range(3):
            t0, t1 = 0.08 + 0.32 * k, 0.24 + 0.32 * k
            h = y + 0.05 - top
            a, b = 0.045 + 0.03 * t0, 0.045 + 0.03 * t1
            pen.shape(
                [(x - a * s, top + h * t0), (x + a * s, top + h * t0), (x + b * s, top + h * t1), (x - b * s, top + h * t1)],
                paint,
            )
        pen.box(x - 0.035 * s, top - 0.06, x + 0.035 * s, top, "#ffe06b", edge=INK, w=0.006)
        pen.shape([(x - 0.05 * s, top - 0.06), (x, top - 0.11), (x + 0.05 * s, top - 0.06)], INK)
    elif thing == "bird":
        pen.line(
            [(x - 0.085, y - 0.045), (x - 0.03, y - 0.02), (x, y + 0.03), (x + 0.03, y - 0.02), (x + 0.085, y - 0.045)],
            paint,
            0.024,
        )
    elif thing == "cloud":
        for dx, dy, r in ((-0.08, 0.0, 0.05), (0, -0.03, 0.07), (0.08, 0.0, 0.05)):
            pen.disc(x + dx, y + dy, r, paint)
        pen.box(x - 0.1, y, x + 0.1, y + 0.048, paint)
    elif thing == "fish":
        pen.disc(x, y, 0.075, paint, ry=0.042)
        pen.shape([(x + 0.055, y), (x + 0.125, y - 0.045), (x + 0.125, y + 0.045)], paint)
        pen.disc(x - 0.04, y - 0.01, 0.009, INK)
    else:  # flower
        pen.line([(x, y), (x, y + 0.2)], "#2f7a3a", 0.014)
        for k in range(6):
            pen.disc(x + 0.052 * math.cos(k * math.pi / 3), y - 0.02 + 0.052 * math.sin(k * math.pi / 3), 0.034, paint)
        pen.disc(x, y - 0.02, 0.03, "#ffd83a" if colour != "yellow" else "#8d5a35")
