"""Random pictures in the house style, each with what can be said of it.

A `Sample` holds full captions, which name everything that tells it from other pictures, and short
ones, which leave something out. Two pictures with the same `key` deserve the same full captions.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from drawing import CHART_KINDS, COLOURS, SUBJECTS, chart, flow, island_map, shapes
from PIL import Image
from scenes import GROUNDS, scene

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
WORDS_FOR = {
    "rainfall": ("rainfall", "rain", "precipitation"),
    "temperature": ("temperature", "air temperature", "sea temperature"),
    "wind": ("wind", "wind speed", "wind strength"),
    "visitors": ("visitors", "guests", "visitor numbers"),
    "tides": ("tides", "tide height", "high water"),
    "seabirds": ("seabirds", "nesting birds", "bird pairs"),
    "plants": ("plants", "seedlings", "the garden"),
    "sunshine": ("sunshine", "hours of sun", "sunlight"),
    "fish": ("fish", "the catch", "fish landed"),
    "power": ("power", "electricity", "power use"),
}
ADJECTIVE = {"month": "monthly", "season": "seasonal", "weekday": "daily", "year": "yearly"}
EACH = {"month": ("month", "calendar month"), "season": ("season",), "weekday": ("weekday", "day of the week"), "year": ("year",)}
OPENINGS = (
    "",
    "",
    "",
    "",
    "a picture of ",
    "which picture shows ",
    "show me ",
    "where is ",
    "figure {n}: ",
    "image of ",
    "find ",
)
SKY_WORDS = {
    "day": ("by day", "under a blue sky with the sun", "in the sunshine"),
    "night": ("at night", "under the moon and stars"),
    "sunset": ("at sunset", "under an orange evening sky"),
    "storm": ("in the rain", "under a grey stormy sky"),
}
GROUND_WORDS = {
    "sea": ("on the sea", "at sea"),
    "meadow": ("on a green meadow", "on the grass"),
    "beach": ("on the beach", "on the sand"),
    "snow": ("in the snow", "on white snow"),
}
PLURALS = {"fish": "fish"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and its captions; family names the sort of picture."""

    image: Image.Image
    full: tuple[str, ...]
    short: tuple[str, ...]
    key: str
    family: str


def _size(rng: Random) -> tuple[int, int]:
    height = rng.choice([150, 180, 220])
    return round(height * rng.choice([1.0, 1.2, 1.25, 1.25, 1.333])), height


def _counted(count: int, colour: str, thing: str) -> str:
    many = PLURALS.get(thing, thing + "s")
    return f"a {colour} {thing}" if count == 1 else f"{NUMBERS[count]} {colour} {many}"


def _chart(rng: Random) -> Sample:
    kind, subject = rng.choice(CHART_KINDS), rng.choice(list(SUBJECTS))
    by = rng.choice(["month", "month", "season", "weekday", "year"])
    colour = rng.choice([c for c in COLOURS if c != "white"]) if rng.random() < 0.15 and kind != "table" else ""
    title = rng.choice(
        ["", "", f"Mean {subject}", f"{subject.capitalize()} at the station", f"{ADJECTIVE[by].capitalize()} {subject}"]
    )
    word, each = rng.choice(WORDS_FOR[subject]), rng.choice(EACH[by])
    name = {
        "line": rng.choice(["line chart", "line graph", "curve"]),
        "scatter": rng.choice(["scatter plot", "scatter chart"]),
        "heat map": rng.choice(["heat map", "heatmap"]),
        "table": "table",
    }.get(kind, f"{kind} chart")
    if kind == "scatter":
        other = rng.choice([s for s in SUBJECTS if s != subject])
        also = rng.choice(WORDS_FOR[other])
        image = chart(
            kind, subject, size=_size(rng), rng=rng, title=f"{subject.capitalize()} and {other}", other=other, colour=colour
        )
        full = (
            f"{name} of {word} against {also}",
            f"{name} of {word} and {also}",
            f"dots showing {word} against {also}",
            f"{word} against {also}, {name}",
        )
        return Sample(image, full, (f"{name} of {word}", name), f"{kind} {subject} {other}", "chart")
    image = chart(
        kind, subject, by, size=_size(rng), rng=rng, title=title if kind != "table" else f"{subject.capitalize()}", colour=colour
    )
    paint = colour or SUBJECTS[subject][0]
    if kind == "table":
        full = (
            f"table of {word}",
            f"a {paint} table of {word} in rows and columns",
            f"table with numbers for {word}",
            f"{word}, table",
        )
        return Sample(image, full, (f"a {paint} table", "table of numbers"), f"table {subject}", "table")
    full = (
        f"{name} of {word} by {each}",
        f"{name} of {word} by {each}",
        f"{name} of {ADJECTIVE[by]} {word}",
        f"{word} by {each}, {name}",
        f"a {paint} {name} showing {word} for each {each}",
        f"{name} of {word} per {each}",
        f"how {word} changes by {each}, as a {name}",
    )
    return Sample(
        image,
        full,
        (f"{name} of {word}", f"a {paint} {name}", f"{word} by {each}", f"chart of {word}"),
        f"{kind} {subject} {by}",
        "chart",
    )


def _diagram(rng: Random) -> Sample:
    colour, n, ring = rng.choice([c for c in COLOURS if c not in ("white", "black")]), rng.randint(2, 6), rng.random() < 0.45
    n = max(3, n) if ring else n
    steps = rng.sample(
        ["rain", "tank", "filter", "tap", "pump", "wind", "battery", "lamp", "store", "boat", "tower", "garden"], n
    )
    image = flow(steps, colour=colour, size=_size(rng), ring=ring)
    if ring:
        full = (
            f"cycle diagram of {NUMBERS[n]} {colour} boxes",
            f"{NUMBERS[n]} {colour} boxes in a ring joined by arrows",
            f"circular diagram with {NUMBERS[n]} {colour} steps",
        )
        return Sample(image, full, ("cycle diagram", f"diagram of {colour} boxes"), f"ring {n} {colour}", "diagram")
    full = (
        f"flow diagram of {NUMBERS[n]} {colour} boxes",
        f"{NUMBERS[n]} {colour} boxes joined by arrows, one under another",
        f"flow chart with {NUMBERS[n]} {colour} steps",
    )
    return Sample(
        image, full, ("flow diagram", "boxes joined by arrows", f"diagram of {colour} boxes"), f"flow {n} {colour}", "diagram"
    )


def _map(rng: Random) -> Sample:
    land, n = rng.choice(["green", "brown", "grey"]), rng.randint(1, 4)
    colours = rng.sample(["red", "blue", "yellow", "purple", "orange", "black"], n)
    places = [(0.25, 0.3), (0.75, 0.25), (0.3, 0.75), (0.75, 0.7), (0.5, 0.5)]
    rng.shuffle(places)
    names = rng.sample(["pier", "tower", "garden", "spring", "hut", "cliff", "well"], n)
    image = island_map(rng=rng, size=_size(rng), land=land, marks=[*zip(names, colours, places)])
    said = " and ".join([", ".join(f"a {c}" for c in sorted(colours)[:-1]), f"a {max(colours)}"]) if n > 1 else f"a {colours[0]}"
    full = (
        f"map of a {land} island with {said} mark",
        f"map of the {land} island, marks: {' '.join(sorted(colours))}",
        f"island map, {land} land, {said} spot",
    )
    return Sample(
        image,
        full,
        ("map of the island", f"map of a {land} island", "island with a path"),
        f"map {land} {' '.join(sorted(colours))}",
        "map",
    )


def _shapes(rng: Random) -> Sample:
    groups, left = [], 8
    kinds = rng.sample(["circle", "square", "triangle", "star"], rng.choice([1, 2, 2]))
    for shape in kinds:
        count = rng.randint(1, min(5, left - 1))
        left -= count
        groups.append((count, rng.choice([c for c in COLOURS if c not in ("white", "grey")]), shape))
    image = shapes(groups, rng=rng, size=_size(rng))
    said = [_counted(*group) for group in groups]
    full = (" and ".join(said), " and ".join(reversed(said)), "drawing of " + " and ".join(said))
    return Sample(image, full, (f"{kinds[0]}s", f"{groups[0][1]} {kinds[0]}"), f"shapes {' and '.join(sorted(said))}", "shapes")


def _scene(rng: Random) -> Sample:
    sky, ground = rng.choice(list(SKY_WORDS)), rng.choice(["sea", "sea", *GROUNDS])
    standing = (
        ["boat", "boat", "lighthouse"]
        if ground == "sea"
        else ["house", "tree", "lighthouse", "flower"]
        if ground != "snow"
        else ["house", "tree"]
    )
    first = rng.choice(standing)
    things = [(1 if first == "lighthouse" else rng.randint(1, 3), _thing_colour(first, rng), first)]
    if rng.random() < 0.6:
        second = rng.choice(["bird", "cloud", *(["fish"] if ground == "sea" else [t for t in ("house", "tree") if t != first])])
        things.append((rng.randint(1, 3), _thing_colour(second, rng), second))
    image = scene(things, sky=sky, ground=ground, rng=rng, size=_size(rng))
    said = [_counted(*thing) for thing in things]
    sky_words, ground_words = rng.choice(SKY_WORDS[sky]), rng.choice(GROUND_WORDS[ground])
    full = (
        f"{' and '.join(said)} {ground_words} {sky_words}",
        f"{sky_words}, {' and '.join(reversed(said))} {ground_words}",
        f"{said[0]} {ground_words}{' with ' + said[1] if len(said) > 1 else ''}, {sky_words}",
    )
    short = (f"{said[0]} {ground_words}", f"{said[0]} {sky_words}", said[0], f"{first} {sky_words}")
    return Sample(image, full, short, f"scene {sky} {ground} {' and '.join(sorted(said))}", "scene")


def _thing_colour(thing: str, rng: Random) -> str:
    if thing == "cloud":
        return rng.choice(["white", "grey", "black"])
    if thing == "tree":
        return rng.choice(["green", "green", "orange", "yellow", "brown"])
    if thing == "bird":
        return rng.choice(["white", "black", "red"])
    return rng.choice(
        ["red", "blue", "green", "yellow", "orange", "purple", "white", "brown", "black", "pink"][
            : 8 if thing != "flower" else 10
        ]
    )


FAMILIES = {"chart": (_chart, 5), "scene": (_scene, 4), "diagram": (_diagram, 1), "map": (_map, 1), "shapes": (_shapes, 2)}


def sample(rng: Random) -> Sample:
    """One random picture with captions; which family is random too."""
    draws, weights = zip(*FAMILIES.values())
    return rng.choices(draws, weights)[0](rng)


def caption(found: Sample, rng: Random, *, full_share: float = 0.85) -> str:
    """A full caption, or now and then a short one, perhaps with words of asking before it."""
    words = rng.choice(found.full if rng.random() < full_share else found.short)
    return (rng.choice(OPENINGS).format(n=rng.randint(1, 30)) + words).strip()
