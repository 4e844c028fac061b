"""The texts that int8 is calibrated on and that engines are compared on: `calibration.txt`, our own words.

Blank lines part it into blocks of one subject. Each line is a text, and so is each block as a whole:
short questions and long passages both occur, as they do in use.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_PATH = Path(__file__).with_name("calibration.txt")


@cache
def calibration_texts() -> tuple[str, ...]:
    """Every line, and every block of lines joined."""
    blocks = [block.split("\n") for block in _PATH.read_text(encoding="utf-8").strip().split("\n\n")]
    return tuple([line for block in blocks for line in block] + [" ".join(block) for block in blocks if len(block) > 1])


@cache
def calibration_hash() -> str:
    """First 8 hex digits of the file's sha256: part of the identity of int8 vectors."""
    return hashlib.sha256(_PATH.read_bytes()).hexdigest()[:8]
