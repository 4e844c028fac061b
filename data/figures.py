"""The handbook's figures, each drawn from numbers that the text speaks of; and its cover and notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from drawing import INK, PAPER, Pen, chart, flow, island_map, mix
from PIL import Image
from scenes import place, scene

RAINFALL = (118, 92, 84, 61, 48, 57, 69, 88, 112, 142, 121, 102)  # millimetres; 1,094 in all
TEMPERATURE = (4.6, 4.1, 5.0, 6.6, 8.9, 11.6, 13.9, 14.6, 12.8, 10.1, 7.3, 5.4)
HIGH_WATER = (52, 58, 66, 61, 48, 41, 43, 55, 71, 74, 63, 56)  # centimetres above three metres
FISH = (18, 14, 22, 31, 46, 78, 96, 104, 83, 52, 34, 21)


def _wind_grid() -> list[list[float]]:
    def strength(hour: float, month: int) -> float:
        daily = 0.22 * math.sin((hour - 8) / 24 * 2 * math.pi) * (1 - abs(month - 6) / 8)
        return 0.55 + 0.3 * math.cos((month - 0.5) / 12 * 2 * math.pi) + daily

    return [[strength(4 * row + 2, month) for month in range(12)] for row in range(6)]


def _cloud(rng: Random, n: int, slope: float, noise: float, base: float = 0.1) -> list[tuple[float, float]]:
    xs = [rng.uniform(0.05, 0.95) for _ in range(n)]
    return [(x, min(0.96, max(0.04, base + slope * x * x + rng.gauss(0, noise)))) for x in xs]


FIGURES: dict[str, Callable[[], Image.Image]] = {
    "map": lambda: island_map(
        rng=Random(12),
        marks=[
            ("Pier", "red", (0.16, 0.72)),
            ("Tower", "blue", (0.42, 0.45)),
            ("Garden", "yellow", (0.64, 0.62)),
            ("Spring", "purple", (0.82, 0.28)),
        ],
    ),
    "lighthouse": lambda: scene([(1, "red", "lighthouse")], sky="night", rng=Random(4), size=(900, 640)),
    "rainfall": lambda: chart("bar", "rainfall", "month", title="Rainfall by month", unit="millimetres", values=RAINFALL),
    "temperature": lambda: chart(
        "line", "temperature", "month", title="Air temperature by month", unit="degrees Celsius", values=TEMPERATURE
    ),
    "wind": lambda: chart(
        "heat map", "wind", "month", title="Wind by month and hour", unit="darker is stronger", grid=_wind_grid()
    ),
    "sunshine": lambda: chart("bar", "sunshine", "season", title="Sunshine by season", unit="hours", values=(478, 521, 262, 149)),
    "tides": lambda: chart(
        "line", "tides", "month", title="Mean high water by month", unit="centimetres above three metres", values=HIGH_WATER
    ),
    "surge": lambda: chart(
        "scatter",
        "tides",
        title="Surge and wind",
        unit="metres above prediction",
        other="wind",
        values=_cloud(Random(8), 46, 0.72, 0.06),
    ),
    "species": lambda: chart(
        "pie",
        "seabirds",
        title="Seabirds by species",
        unit="pairs, June 2024",
        labels=("Guillemot", "Kittiwake", "Razorbill", "Fulmar", "Puffin"),
        values=(4520, 1980, 1210, 860, 730),
    ),
    "birdyears": lambda: chart(
        "line", "seabirds", "year", title="Seabirds by year", unit="all nesting pairs", values=(9555, 9420, 9355, 9310, 9300)
    ),
    "plants": lambda: chart("bar", "plants", "season", title="Plants in flower by season", unit="kinds", values=(96, 171, 64, 9)),
    "seeds": lambda: flow(("gather", "clean", "dry", "freeze", "test"), colour="green", ring=True),
    "fish": lambda: chart("line", "fish", "month", title="Fish landed by month", unit="kilograms", values=FISH),
    "power": lambda: chart(
        "pie", "power", "season", title="Power by season", unit="share of the year's use", values=(22, 15, 26, 37)
    ),
    "water": lambda: flow(("gutter", "settling tank", "sand filter", "lamp", "tap"), colour="blue"),
    "visitors": lambda: chart("bar", "visitors", "year", title="Visitors by year", unit="people", values=(31, 74, 96, 108, 117)),
    "sundays": lambda: chart(
        "scatter",
        "visitors",
        title="Visitors and sun",
        unit="people landed",
        other="sunshine",
        values=_cloud(Random(15), 25, 0.6, 0.08, 0.15),
    ),
}


def cover(size: tuple[int, int]) -> Image.Image:
    """The cover's picture: evening over the island, portrait."""
    pen, rng = Pen(size), Random(7)
    pen.wash("#20345f", "#f2a65a", 0, 0.62)
    pen.disc(0.2, 0.5, 0.075, "#ffd98a")
    for x, y in ((0.12, 0.36), (0.24, 0.31), (0.17, 0.4)):
        pen.line(
            [(x - 0.022, y - 0.012), (x - 0.008, y - 0.006), (x, y + 0.006), (x + 0.008, y - 0.006), (x + 0.022, y - 0.012)],
            PAPER,
            0.006,
        )
    hills = [
        (0.3, 0.62),
        (0.36, 0.585),
        (0.43, 0.575),
        (0.5, 0.535),
        (0.58, 0.525),
        (0.66, 0.485),
        (0.75, 0.47),
        (0.75, 0.7),
        (0.3, 0.7),
    ]
    pen.shape(hills, "#26413f")
    pen.wash("#2c6d93", "#0f2d4d", 0.62, 1.0)
    pen.shape([(0.28, 0.63), (0.36, 0.6), (0.52, 0.595), (0.75, 0.57), (0.75, 0.67), (0.4, 0.655)], "#1b3132")
    for k in range(46):
        y = 0.64 + 0.35 * (k / 46)
        x = rng.uniform(-0.1, 0.7)
        w = 0.03 + 0.1 * (k / 46)
        pen.line(
            [(x, y), (x + w / 2, y - 0.004), (x + w, y)],
            mix("#2c6d93", "#f2c18a" if abs(x + w / 2 - 0.2) < 0.13 else "#cfe6f4", 0.55),
            0.003 + 0.002 * k / 46,
        )
    place(pen, "lighthouse", "red", 0.53, 0.56, rng, "night", "sea", 0.55)
    place(pen, "boat", "white", 0.16, 0.7, rng, "day", "sea", 0.42)
    return pen.done()


def notice(size: tuple[int, int]) -> Image.Image:
    """A printed notice: a page that is only a picture, for OCR to read."""
    pen = Pen(size, "#fbf7ea")
    w = pen.right
    pen.box(0.03, 0.03, w - 0.03, 0.97, None, edge="#b3261e", w=0.008)
    pen.box(0.045, 0.045, w - 0.045, 0.955, None, edge="#b3261e", w=0.003)
    pen.text(w / 2, 0.12, "NOTICE", 0.085, "#b3261e", bold=True)
    pen.line([(0.1, 0.18), (w - 0.1, 0.18)], INK, 0.004)
    rows = (
        ("The western cliffs", 0.04, False),
        ("ARE CLOSED", 0.062, True),
        ("from 1 April to 15 August", 0.04, False),
        ("for the nesting birds.", 0.04, False),
    )
    for row, (words, height, bold) in enumerate(rows):
        pen.text(w / 2, 0.245 + 0.072 * row, words, height, INK, bold=bold)
    for x, y, s in ((0.2, 0.605, 0.95), (0.354, 0.58, 1.2), (0.51, 0.61, 0.95)):
        pen.line(
            [
                (x - 0.07 * s, y - 0.04 * s),
                (x - 0.025 * s, y - 0.02 * s),
                (x, y + 0.02 * s),
                (x + 0.025 * s, y - 0.02 * s),
                (x + 0.07 * s, y - 0.04 * s),
            ],
            "#1d4e79",
            0.016 * s,
        )
    rows = (
        ("Keep 15 metres from the rope.", 0.034),
        ("Dogs and drones are forbidden.", 0.034),
        ("Penalty: 250 crowns.", 0.04),
        ("Ask the bird warden, hut 3.", 0.034),
    )
    for row, (words, height) in enumerate(rows):
        pen.text(w / 2, 0.68 + 0.062 * row, words, height, INK, bold=row == 2)
    return pen.done()
