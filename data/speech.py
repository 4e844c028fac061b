"""Sentences over a closed vocabulary, and espeak-ng to speak them.

The demo Whisper is trained on these sentences and knows no other words; the sample recording and film
are narrated with them. Numbers are written as words, as they are spoken.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import wave
from dataclasses import dataclass
from io import BytesIO
from random import Random

import numpy as np

SLOTS: dict[str, tuple[str, ...]] = {
    "n": (
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "fifteen",
        "twenty",
        "thirty",
        "forty",
        "fifty",
    ),
    "hour": ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    "colour": ("red", "blue", "green", "yellow", "white", "black", "brown", "orange", "purple"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
    "place": (
        "tower",
        "pier",
        "garden",
        "harbour",
        "lighthouse",
        "cliff",
        "beach",
        "house",
        "kitchen",
        "library",
        "hill",
        "bridge",
    ),
    "person": ("keeper", "gardener", "engineer", "warden", "cook", "captain", "doctor", "teacher"),
    "animals": ("seals", "whales", "birds", "fish", "gulls", "puffins", "horses", "dogs"),
    "things": ("boats", "trees", "flowers", "houses", "birds", "clouds"),
    "object": ("key", "map", "letter", "lamp", "book", "coat", "ring", "bottle", "camera", "radio"),
    "vessel": ("boat", "ferry", "ship"),
    "weather": ("wind", "rain", "fog", "storm", "snow"),
    "when": ("morning", "afternoon", "evening"),
    "way": ("north", "south", "east", "west"),
    "sky": ("by day", "at night", "in the rain", "in the snow", "at sunset"),
    "side": ("near", "behind", "under", "beside"),
}
TEMPLATES = (
    "Welcome to the sea station.",
    "This is the report of the {person} for {day}.",
    "Good {when}, this is the {person} of the island.",
    "The {colour} {vessel} leaves the {place} at {hour} on {day}.",
    "The {vessel} from the {place} arrives at {hour} in the {when}.",
    "The {person} counted {n} {animals} {side} the {place} on {day}.",
    "The {object} is kept in the {colour} box {side} the {place}.",
    "On {day} the {weather} was strong and the {place} was closed.",
    "High water is at {hour} in the {when}.",
    "{N} visitors came to the {place} in {month}.",
    "The {person} found a {colour} {object} {side} the {place}.",
    "The wind will turn to the {way} in the {when}.",
    "The temperature was {n} degrees in {month}.",
    "There are {n} {colour} flowers {side} the {place}.",
    "The bell rings at {hour} when the {weather} comes from the {way}.",
    "The {person} will paint the {place} {colour} in {month}.",
    "A {colour} light was seen from the {place} at night.",
    "Please close the {colour} door before the {weather}.",
    "Here we see {n} {colour} {things} {sky}.",
    "Here we see a {colour} {place} {sky}.",
    "Here we see a {colour} {vessel} on the sea {sky}.",
    "The old {place} has {n} rooms and a {colour} roof.",
    "We lost {n} {object}s in the {weather} of {month}.",
    "The {person} sleeps until {hour} on {day}.",
    "Thank you and good night.",
)
VOICES = ("en", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd")
VARIANTS = ("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5")
HELD_OUT_VOICES = (("en-us", "+f4"), ("en-gb-scotland", "+m4"), ("en-gb-x-rp", "+f1"), ("en", "+m7"))
RATE = 16_000


@dataclass(frozen=True, slots=True)
class Voice:
    """How espeak-ng speaks: speed in words a minute, pitch 0 to 99."""

    name: str = "en-gb-x-rp"
    variant: str = ""
    speed: int = 150
    pitch: int = 50


def sentence(rng: Random) -> str:
    """A random sentence of the closed vocabulary."""
    template = rng.choices(TEMPLATES, [1 + 3 * t.count("{") for t in TEMPLATES])[0]
    words = re.sub(
        r"\{(\w+)\}", lambda m: rng.choice(SLOTS[m[1].lower()]).capitalize() if m[1] == "N" else rng.choice(SLOTS[m[1]]), template
    )
    return words.replace("a orange", "an orange").replace("A orange", "An orange")


def vocabulary() -> set[str]:
    """Every word that a sentence can hold, in lower case."""
    words = set(re.findall(r"[a-z]+", " ".join(re.sub(r"\{\w+\}", " ", t) for t in TEMPLATES).lower()))
    words |= (
        {w.lower() for slot in SLOTS.values() for words_ in slot for w in words_.split()}
        | {f"{o}s" for o in SLOTS["object"]}
        | {"an"}
    )
    return words - {"s"}


def random_voice(rng: Random, *, held_out: bool = False) -> Voice:
    """A voice for training, or one of the settings that training never uses."""
    while True:
        pair = rng.choice(HELD_OUT_VOICES) if held_out else (rng.choice(VOICES), rng.choice(VARIANTS))
        if held_out or pair not in HELD_OUT_VOICES:
            return Voice(*pair, speed=rng.randint(130, 185), pitch=rng.randint(30, 70))


def available() -> bool:
    """Whether espeak-ng is installed."""
    return shutil.which("espeak-ng") is not None


def speak(words: str, voice: Voice) -> np.ndarray:
    """float32 (n,) mono at 16 kHz in [-1, 1], silence at both ends cut to 20 ms."""
    from scipy.signal import resample_poly

    command = ["espeak-ng", "-v", voice.name + voice.variant, "-s", str(voice.speed), "-p", str(voice.pitch), "--stdout", words]
    data = subprocess.run(command, check=True, capture_output=True, timeout=30).stdout
    with wave.open(BytesIO(data)) as sound:
        rate = sound.getframerate()
        pcm = np.frombuffer(data[44:], np.int16).astype(np.float32) / 32768
    pcm = resample_poly(pcm, 320, rate * 320 // RATE).astype(np.float32) if rate != RATE else pcm
    loud = np.flatnonzero(np.abs(pcm) > 0.01)
    return pcm[max(0, loud[0] - 320) : loud[-1] + 320] if len(loud) else pcm


def narrate(
    sentences: list[str], voices: list[Voice], *, gap_s: float = 0.45, starts_s: list[float] | None = None
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Sentences one after another (or from given seconds), and the second each begins and ends at."""
    parts, spans, at = [], [], 0.3
    for k, words in enumerate(sentences):
        spoken = speak(words, voices[k % len(voices)])
        if starts_s:
            at = starts_s[k]
        parts.append((round(at * RATE), spoken))
        spans.append((round(at, 2), round(at + len(spoken) / RATE, 2)))
        at += len(spoken) / RATE + gap_s
    out = np.zeros(round(at * RATE), np.float32)
    for first, spoken in parts:
        out[first : first + len(spoken)] += spoken[: len(out) - first]
    return out, spans
