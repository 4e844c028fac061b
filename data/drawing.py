"""The house style of every drawn picture here: charts, tables, diagrams, maps, scenes, shapes.

`make_samples.py` draws the handbook, the pictures and the film with it; `train_demo_clip.py` draws
its training and test pictures with it, so the demo CLIP has seen this style and no other. Each chart
carries a round badge with its subject's colour and sign, because titles cannot be read at 96 pixels.
All lengths are fractions of the picture's height, so a picture looks the same at any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

import matplotlib
from PIL import Image, ImageDraw, ImageFont

INK, PAPER, MUTED = "#22313f", "#ffffff", "#8a97a3"
COLOURS = {
    "red": "#d63a34",
    "blue": "#2f73c9",
    "green": "#3b9b4f",
    "yellow": "#f4c92d",
    "orange": "#ee8a2c",
    "purple": "#8350b5",
    "pink": "#ec82b4",
    "brown": "#8d5a35",
    "black": "#26282c",
    "white": "#fbfbf8",
    "grey": "#9aa1a8",
}
SUBJECTS = {  # subject: (name of its colour, colour, what its axis says)
    "rainfall": ("blue", "#2f73c9", "mm"),
    "temperature": ("red", "#d63a34", "degrees C"),
    "wind": ("teal", "#22a39a", "knots"),
    "visitors": ("orange", "#ee8a2c", "people"),
    "tides": ("navy", "#22346b", "metres"),
    "seabirds": ("purple", "#8350b5", "pairs"),
    "plants": ("green", "#3b9b4f", "plants"),
    "sunshine": ("gold", "#e3b112", "hours"),
    "fish": ("pink", "#e0669f", "kg"),
    "power": ("grey", "#5b6670", "kWh"),
}
LABELS = {
    "month": list("JFMAMJJASOND"),
    "season": ["Spring", "Summer", "Autumn", "Winter"],
    "weekday": ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
    "year": ["2020", "2021", "2022", "2023", "2024"],
}
CHART_KINDS = ("bar", "line", "pie", "scatter", "heat map", "table")
Point = tuple[float, float]


@lru_cache(maxsize=64)
def font(px: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it, so the pictures are the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), px)


def mix(a: str, b: str, t: float) -> str:
    """The colour t of the way from a to b, both '#rrggbb'."""
    pairs = zip((a[1:3], a[3:5], a[5:7]), (b[1:3], b[3:5], b[5:7]))
    return "#" + "".join(f"{round(int(x, 16) * (1 - t) + int(y, 16) * t):02x}" for x, y in pairs)


class Pen:
    """Draws at twice the size and shrinks at the end; x and y in heights, so x runs to width / height."""

    def __init__(self, size: tuple[int, int], background: str = PAPER) -> None:
        self.size, self.px = size, size[1] * 2
        self.right = size[0] / size[1]
        self.left = max(0.0, (self.right - 1) / 2)  # where a centred square starts
        self.canvas = Image.new("RGB", (size[0] * 2, size[1] * 2), background)
        self.draw = ImageDraw.Draw(self.canvas)

    def _xy(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self.px, y * self.px) for x, y in points]

    def box(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        fill: str | None,
        *,
        edge: str | None = None,
        radius: float = 0,
        w: float = 0.008,
    ) -> None:
        """A rectangle, its corners rounded by `radius`."""
        (a, b), (c, d) = self._xy([(min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))])
        self.draw.rounded_rectangle((a, b, c, d), radius * self.px, fill, edge, max(1, round(w * self.px)) if edge else 1)

    def disc(
        self,
        x: float,
        y: float,
        r: float,
        fill: str | None,
        *,
        edge: str | None = None,
        w: float = 0.008,
        ry: float | None = None,
    ) -> None:
        """A circle, or an ellipse when ry is given."""
        (a, b), (c, d) = self._xy([(x - r, y - (ry or r)), (x + r, y + (ry or r))])
        self.draw.ellipse((a, b, c, d), fill, edge, max(1, round(w * self.px)) if edge else 1)

    def line(self, points: Sequence[Point], fill: str, w: float = 0.01) -> None:
        """A broken line with rounded joints."""
        self.draw.line(self._xy(points), fill, max(1, round(w * self.px)), joint="curve")

    def shape(self, points: Sequence[Point], fill: str, *, edge: str | None = None) -> None:
        """A filled polygon."""
        self.draw.polygon(self._xy(points), fill, edge)

    def slice(self, x: float, y: float, r: float, start: float, end: float, fill: str) -> None:
        """A slice of a pie, degrees clockwise from three o'clock."""
        (a, b), (c, d) = self._xy([(x - r, y - r), (x + r, y + r)])
        self.draw.pieslice((a, b, c, d), start, end, fill, PAPER, max(1, round(0.006 * self.px)))

    def text(
        self, x: float, y: float, words: str, size: float = 0.04, fill: str = INK, anchor: str = "mm", bold: bool = False
    ) -> None:
        """One line of text; anchor as in PIL."""
        self.draw.text((x * self.px, y * self.px), words, fill, font(max(4, round(size * self.px)), bold), anchor)

    def wash(self, top: str, bottom: str, y0: float = 0, y1: float = 1) -> None:
        """A vertical gradient over the full width."""
        first, last = round(y0 * self.px), round(y1 * self.px)
        for y in range(first, last):
            self.draw.line((0, y, self.canvas.width, y), mix(top, bottom, (y - first) / max(1, last - first)))

    def done(self) -> Image.Image:
        """The picture at its asked size."""
        return self.canvas.resize(self.size, Image.Resampling.BOX)


def badge(pen: Pen, subject: str, x: float, y: float, r: float = 0.085) -> None:  # noqa: C901 - one branch a sign
    """A disc in the subject's colour with its sign in white."""
    pen.disc(x, y, r, SUBJECTS[subject][1])
    at = lambda dx, dy: (x + dx * r, y + dy * r)  # noqa: E731
    white, w = PAPER, r * 0.16
    if subject == "rainfall":
        pen.disc(*at(0, 0.2), r * 0.42, white)
        pen.shape([at(0, -0.75), at(0.37, 0.05), at(-0.37, 0.05)], white)
    elif subject == "temperature":
        pen.line([at(0, -0.6), at(0, 0.3)], white, r * 0.3)
        pen.disc(*at(0, 0.4), r * 0.34, white)
    elif subject == "wind":
        for dy, end in ((-0.4, 0.35), (0, 0.65), (0.4, 0.15)):
            pen.line([at(-0.65, dy), at(end, dy)], white, w)
    elif subject == "visitors":
        pen.disc(*at(0, -0.35), r * 0.26, white)
        pen.shape([at(-0.45, 0.6), at(-0.3, 0.02), at(0.3, 0.02), at(0.45, 0.6)], white)
    elif subject == "tides":
        for dy in (-0.25, 0.25):
            pen.line([at(-0.7 + i * 0.14, dy + 0.18 * math.sin(i * math.pi / 2.5)) for i in range(11)], white, w)
    elif subject == "seabirds":
        pen.line([at(-0.7, -0.3), at(-0.25, -0.15), at(0, 0.3), at(0.25, -0.15), at(0.7, -0.3)], white, w * 1.2)
    elif subject == "plants":
        pen.shape([at(0.05, 0.3), at(-0.6, 0.1), at(-0.55, -0.5), at(0.0, -0.2)], white)
        pen.shape([at(-0.05, 0.3), at(0.6, 0.1), at(0.55, -0.5), at(0.0, -0.2)], white)
        pen.line([at(0, -0.1), at(0, 0.7)], white, w)
    elif subject == "sunshine":
        pen.disc(x, y, r * 0.32, white)
        for k in range(8):
            c, s = math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)
            pen.line([at(0.45 * c, 0.45 * s), at(0.72 * c, 0.72 * s)], white, w * 0.8)
    elif subject == "fish":
        pen.disc(*at(-0.12, 0), r * 0.45, white, ry=r * 0.28)
        pen.shape([at(0.2, 0), at(0.65, -0.35), at(0.65, 0.35)], white)
    else:  # power
        pen.shape([at(0.2, -0.75), at(-0.42, 0.12), at(-0.02, 0.12), at(-0.2, 0.75), at(0.42, -0.15), at(0.04, -0.15)], white)


def series(rng: Random, subject: str, n: int) -> list[float]:
    """n plausible values between 0.1 and 1."""
    start, swing, drift = rng.random() * 2 * math.pi, rng.uniform(0.1, 0.38), rng.uniform(-0.25, 0.25)
    return [
        min(1, max(0.1, 0.55 + swing * math.sin(start + 2 * math.pi * i / n) + drift * (i / n - 0.5) + rng.gauss(0, 0.07)))
        for i in range(n)
    ]


def chart(
    kind: str,
    subject: str,
    by: str = "month",
    *,
    size: tuple[int, int] = (900, 720),
    rng: Random | None = None,
    title: str = "",
    values: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    other: str = "wind",
    colour: str = "",
    unit: str = "",
    rows: Sequence[Sequence[str]] | None = None,
    grid: Sequence[Sequence[float]] | None = None,
    ylabels: Sequence[str] = (),
) -> Image.Image:
    """A chart of `kind` (CHART_KINDS). `values` are drawn as given; without them the rng invents some.

    other: the second subject of a scatter plot (its values are then pairs) ; rows: of a table; grid: of a heat map.
    """
    rng = rng or Random(0)
    pen = Pen(size)
    paint = COLOURS.get(colour) or SUBJECTS[subject][1]
    labels = list(labels or LABELS.get(by, LABELS["month"]))
    x0 = pen.left + 0.13
    badge(pen, subject, x0, 0.115)
    pen.text(x0 + 0.12, 0.1, title or f"{subject.capitalize()} by {by}", 0.05, anchor="lm", bold=True)
    pen.text(x0 + 0.12, 0.155, unit or SUBJECTS[subject][2], 0.032, MUTED, anchor="lm")
    if kind == "pie":
        _pie(pen, rng, paint, labels, values)
    elif kind == "heat map":
        _heat_map(pen, rng, paint, labels, grid, ylabels)
    elif kind == "scatter":
        _scatter(pen, rng, paint, other, values)  # type: ignore[arg-type]
    elif kind == "table":
        _table(pen, rng, paint, rows)
    else:
        _axes(pen, rng, kind, paint, labels, values or [v * 100 for v in series(rng, subject, len(labels))])
    return pen.done()


def _nice_top(highest: float) -> float:
    step = 10 ** math.floor(math.log10(highest))
    return next(step * k for k in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * k >= highest)


def _axes(pen: Pen, rng: Random, kind: str, paint: str, labels: Sequence[str], values: Sequence[float]) -> None:
    left, right, top, base = 0.15, pen.right - 0.06, 0.25, 0.88
    highest = _nice_top(max(values))
    for k in range(5):
        y = base - (base - top) * k / 4
        pen.line([(left, y), (right, y)], "#e3e8ec", 0.004)
        pen.text(left - 0.02, y, f"{highest * k / 4:g}", 0.03, MUTED, "rm")
    pitch = (right - left) / len(values)
    points = [(left + pitch * (i + 0.5), base - (base - top) * v / highest) for i, v in enumerate(values)]
    if kind == "bar":
        for x, y in points:
            pen.box(x - pitch * 0.36, y, x + pitch * 0.36, base, paint)
    else:
        pen.line(points, paint, 0.017)
        for x, y in points:
            pen.disc(x, y, 0.02, PAPER, edge=paint, w=0.01)
    for (x, _), label in zip(points, labels):
        pen.text(x, base + 0.045, label, 0.034 if len(labels) > 7 else 0.036)
    pen.line([(left, base), (right, base)], INK, 0.006)


def _pie(pen: Pen, rng: Random, paint: str, labels: Sequence[str], values: Sequence[float] | None) -> None:
    values = values or [rng.uniform(0.4, 1.6) for _ in labels]
    angle, total, x, y, r = -90.0, sum(values), pen.right / 2, 0.6, 0.335
    for i, (label, value) in enumerate(zip(labels, values)):
        end = angle + 360 * value / total
        shade = mix(paint, "#ffffff", 0.72 * ((i * 2) % len(labels) if len(labels) % 2 else i) / len(labels))
        pen.slice(x, y, r, angle, end, shade)
        middle = math.radians((angle + end) / 2)
        side = "lm" if math.cos(middle) > 0.25 else "rm" if math.cos(middle) < -0.25 else "mm"
        pen.text(x + 0.365 * math.cos(middle), y + 0.365 * math.sin(middle), label, 0.034, anchor=side)
        angle = end


def _scatter(pen: Pen, rng: Random, paint: str, other: str, pairs: Sequence[Point] | None) -> None:
    left, right, top, base = 0.15, pen.right - 0.06, 0.25, 0.88
    slope, noise = rng.uniform(0.3, 0.75), rng.uniform(0.05, 0.15)
    if not pairs:
        xs = [rng.uniform(0.04, 0.96) for _ in range(rng.randint(22, 45))]
        pairs = [(x, min(0.97, max(0.03, 0.15 + slope * x + rng.gauss(0, noise)))) for x in xs]
    for k in range(5):
        y = base - (base - top) * k / 4
        pen.line([(left, y), (right, y)], "#e3e8ec", 0.004)
    pen.line([(left, top), (left, base), (right, base)], INK, 0.006)
    for x, y in pairs:
        pen.disc(left + (right - left) * x, base - (base - top) * y, 0.018, paint)
    badge(pen, other, pen.right - pen.left - 0.13, 0.115)
    pen.text(pen.right / 2, 0.94, f"{other} ({SUBJECTS[other][2]})", 0.034)


def _heat_map(
    pen: Pen, rng: Random, paint: str, labels: Sequence[str], grid: Sequence[Sequence[float]] | None, ylabels: Sequence[str]
) -> None:
    left, right, top, base = 0.17, pen.right - 0.06, 0.25, 0.88
    n = len(labels)
    if not grid:
        fx, fy, phase = rng.uniform(0.5, 1.4), rng.uniform(0.5, 1.4), rng.random() * 6.3
        grid = [
            [0.5 + 0.35 * math.sin(phase + fx * 6.3 * i / n + fy * 6.3 * j / 6) + rng.gauss(0, 0.1) for i in range(n)]
            for j in range(6)
        ]
    dx, dy, gap = (right - left) / n, (base - top) / len(grid), 0.004
    for j, row in enumerate(grid):
        for i, value in enumerate(row):
            shade = mix("#f1f4f6", paint, min(1, max(0, value)))
            pen.box(left + i * dx + gap, top + j * dy + gap, left + (i + 1) * dx - gap, top + (j + 1) * dy - gap, shade)
        pen.text(left - 0.02, top + (j + 0.5) * dy, ylabels[j] if ylabels else f"{j * 4:02d}h", 0.032, MUTED, "rm")
    for i, label in enumerate(labels):
        pen.text(left + (i + 0.5) * dx, base + 0.045, label, 0.034)


def _table(pen: Pen, rng: Random, paint: str, rows: Sequence[Sequence[str]] | None) -> None:
    if not rows:
        words = ["north", "south", "east", "west", "upper", "lower", "old", "new", "inner", "outer"]
        rows = [["site", "count", "mean"]] + [
            [rng.choice(words), str(rng.randint(3, 99)), f"{rng.uniform(1, 30):.1f}"] for _ in range(rng.randint(4, 8))
        ]
    left, right, top, base = 0.08, pen.right - 0.08, 0.26, 0.94
    dy, dx = (base - top) / len(rows), (right - left) / len(rows[0])
    for j, row in enumerate(rows):
        y = top + j * dy
        pen.box(left, y, right, y + dy, paint if j == 0 else ("#f1f4f6" if j % 2 else PAPER))
        for i, cell in enumerate(row):
            pen.text(left + i * dx + 0.03, y + dy / 2, cell, min(0.042, dy * 0.5), PAPER if j == 0 else INK, "lm", bold=j == 0)
    for i in range(len(rows[0]) + 1):
        pen.line([(left + i * dx, top), (left + i * dx, base)], MUTED, 0.004)
    pen.line([(left, base), (right, base)], MUTED, 0.004)


def flow(steps: Sequence[str], *, colour: str = "blue", size: tuple[int, int] = (900, 720), ring: bool = False) -> Image.Image:
    """Boxes joined by arrows: down the page, or in a ring."""
    pen = Pen(size)
    n, paint, cx = len(steps), COLOURS[colour], pen.right / 2
    if ring:
        spots = [(cx + 0.33 * math.sin(2 * math.pi * k / n), 0.5 - 0.36 * math.cos(2 * math.pi * k / n)) for k in range(n)]
    else:
        spots = [(cx, 0.1 + 0.8 * (k + 0.5 if n == 1 else k) / max(1, n - 1)) for k in range(n)]
    half_w, half_h = (0.155, 0.065) if ring else (0.34, min(0.085, 0.27 / n))
    for k in range(n if ring else n - 1):
        (x0, y0), (x1, y1) = spots[k], spots[(k + 1) % n]
        mx, my, length = (x0 + x1) / 2, (y0 + y1) / 2, math.hypot(x1 - x0, y1 - y0)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        pen.line([(x0, y0), (x1, y1)], INK, 0.012)
        mx, my = mx + ux * 0.02, my + uy * 0.02
        pen.shape(
            [
                (mx + ux * 0.03, my + uy * 0.03),
                (mx - ux * 0.02 - uy * 0.028, my - uy * 0.02 + ux * 0.028),
                (mx - ux * 0.02 + uy * 0.028, my - uy * 0.02 - ux * 0.028),
            ],
            INK,
        )
    for (x, y), words in zip(spots, steps):
        pen.box(x - half_w, y - half_h, x + half_w, y + half_h, mix(paint, "#ffffff", 0.15), edge=INK, radius=0.025)
        pen.text(x, y, words, 0.04 if not ring else 0.034, INK if colour in ("yellow", "white", "pink") else PAPER, bold=True)
    return pen.done()


def island_map(
    *, rng: Random, size: tuple[int, int] = (900, 720), marks: Sequence[tuple[str, str, Point]] = (), land: str = "green"
) -> Image.Image:
    """A map: an island in the sea, a path, and marks (name, colour, place as fractions of the island's box)."""
    pen = Pen(size, "#bfdcf0")
    cx, cy = pen.right / 2, 0.52
    paint = {"green": "#a9cf8f", "brown": "#d9c39a", "grey": "#c3c8c9"}[land]
    wobble = [rng.uniform(0.78, 1.05) for _ in range(14)]
    coast = []
    for k in range(140):
        a, t = 2 * math.pi * k / 140, k / 10
        low = wobble[int(t) % 14]
        r = low + (wobble[(int(t) + 1) % 14] - low) * (0.5 - 0.5 * math.cos(math.pi * (t % 1)))
        coast.append((cx + r * 0.42 * pen.right / 1.1 * math.cos(a), cy + r * 0.37 * math.sin(a)))
    for grow, shade in ((1.16, "#cfe6f4"), (1.07, "#f0e6c0"), (1.0, paint)):
        pen.shape([(cx + (x - cx) * grow, cy + (y - cy) * grow) for x, y in coast], shade)
    spots = [(cx + (px - 0.5) * 0.7 * pen.right / 1.1, cy + (py - 0.5) * 0.6) for _, _, (px, py) in marks]
    if len(spots) > 1:
        pen.line(spots, PAPER, 0.014)
    for (name, colour, _), (x, y) in zip(marks, spots):
        pen.disc(x, y, 0.03, COLOURS[colour], edge=PAPER, w=0.008)
        pen.text(x, y + 0.058, name, 0.033, INK, bold=True)
    pen.text(pen.left + 0.09, 0.07, "N", 0.05, INK, bold=True)
    pen.shape([(pen.left + 0.09, 0.1), (pen.left + 0.065, 0.17), (pen.left + 0.115, 0.17)], INK)
    return pen.done()


def shapes(groups: Sequence[tuple[int, str, str]], *, rng: Random, size: tuple[int, int] = (600, 600)) -> Image.Image:
    """groups of (count, colour, 'circle' | 'square' | 'triangle' | 'star'), laid out on a loose grid."""
    pen = Pen(size, rng.choice(["#ffffff", "#f2efe6", "#e8eef2"]))
    cells = [(c, r) for r in range(3) for c in range(3)]
    rng.shuffle(cells)
    for count, colour, shape in groups:
        for _ in range(count):
            c, r = cells.pop()
            x = pen.left + (c + 0.5) / 3 + rng.uniform(-0.04, 0.04)
            y, s, paint = (r + 0.5) / 3 + rng.uniform(-0.04, 0.04), rng.uniform(0.09, 0.12), COLOURS[colour]
            if shape == "circle":
                pen.disc(x, y, s, paint)
            elif shape == "square":
                pen.box(x - s, y - s, x + s, y + s, paint)
            else:
                n = 6 if shape == "triangle" else 10
                inner = 0.5 if shape == "triangle" else 0.42
                pen.shape(
                    [
                        (
                            x + s * 1.2 * (inner if k % 2 else 1) * math.sin(2 * math.pi * k / n),
                            y - s * 1.2 * (inner if k % 2 else 1) * math.cos(2 * math.pi * k / n),
                        )
                        for k in range(n)
                    ],
                    paint,
                )
    return pen.done()
