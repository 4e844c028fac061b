"""Text that we did not write: marked on its way into a model, stripped on its way out.

On the way in: invisible characters go, and every blank becomes a mark ("datamarking"), so that the
model can tell at each word that it reads a document and not an order. Source: Hines et al.,
"Defending Against Indirect Prompt Injection Attacks With Spotlighting", 2024. Encoding the text
(their third form) was measured there to be safer still, but small models cannot read it.
On the way out: links and pictures go, since one that a reader's browser loads or a reader clicks
carries whatever the model was talked into writing to a stranger's server.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ultrafast_rag.types import visible

MARKS = ("^", "¦", "¬", "ˆ")
_BLANKS = re.compile(r"\s+")


def choose_mark(texts: Iterable[str]) -> str:
    """A mark that none of the texts holds; the first one where all are taken (`mark` then removes it)."""
    joined = "\n".join(texts)
    return next((mark for mark in MARKS if mark not in joined), MARKS[0])


def mark(text: str, with_mark: str) -> str:
    """Visible text as one unbroken word: `with_mark` stands for each run of blanks, and only there."""
    return _BLANKS.sub(with_mark, visible(text).replace(with_mark, "").strip())


_NUMBERED = re.compile(r"[\[【⟦]\s*\^?(\d{1,3}(?:\s*[,;–-]\s*\^?\d{1,3})*)\s*(?:†[^\]】⟧]*)?[\]】⟧]")


def quotable(text: str) -> str:
    """A passage as it may stand in an answer: no links, nothing unseen, and no [7] that would pass for a citation of ours."""
    return _NUMBERED.sub(r"(\1)", strip_links(text).text)


class Stripped(NamedTuple):
    """text without links and pictures; removed: how many were there."""

    text: str
    removed: int


_DEEPEST = 32  # mappings in mappings; deeper ones, and those that hold themselves, are refused


def unstorable(value: Any, *, depth: int = 0) -> str:
    """Why a text or a metadata value cannot be stored and compared, in words; "" when it can.

    What is stored is JSON in SQLite: text without NUL and lone surrogates, finite numbers of 64 bits,
    True, False, None, lists, and mappings from text to these.
    """
    if isinstance(value, str):
        if "\0" in value:
            return f"holds a NUL character (at {value.index(chr(0))}); remove it"
        return (
            "" if _encodable(value) else "holds half of a surrogate pair, which is no character; decode it with errors='replace'"
        )
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return "" if -(2**63) <= value < 2**63 else "is a whole number of more than 64 bits; give it as text"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, which cannot be compared; leave it out or give None"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if depth >= _DEEPEST:
            return f"is nested more than {_DEEPEST} deep"
        inside = [*value, *value.values()] if isinstance(value, Mapping) else value
        return next((f"holds a value that {why}" for part in inside if (why := unstorable(part, depth=depth + 1))), "")
    return f"is of type {type(value).__name__}; text, numbers, True, False, None, lists and mappings of these can be stored"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_TLD = "com|net|org|io|ru|cn|info|biz|xyz|top|site|online|dev|app|ai|co|me|cc|tk|ml|ga|cf|gq|link|click|eu|uk|de"
# each: what to find, what stays of it; none may start at more than a few places of one run, or long replies stall
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # pictures vanish with their description, which is part of what they would send
    (re.compile(r"!\[[^\]]*\]\s*(?:\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\])"), ""),
    (re.compile(r"!\[(?!\d)[^\]]*\]"), ""),
    # definitions of references, before the bare address inside them goes
    (re.compile(r"(?m)^[ \t>]*\[[^\]\n]+\]:[ \t]*\S.*$"), ""),
    (re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\s*\((?:[^()]|\([^()]*\))*\)"), r"\1"),
    (re.compile(r"\[([^\[\]]*[^\W\d][^\[\]]*)\]\s?\[[^\[\]]*\]"), r"\1"),
    # elements, comments and autolinks
    (re.compile(r"<(?:script|style)\b.*?</(?:script|style)\s*>", re.I | re.S), ""),
    (re.compile(r"<!--.*?(?:-->|\Z)", re.S), ""),
    (re.compile(r"<(?=[A-Za-z/!?])[^<>]*>"), ""),
    # an element that never closes: browsers accept it
    (re.compile(r"<(?:img|a|i?frame|svg|video|audio|object|embed|form|input|link|meta|base|body|html)\b[^<>\n]*", re.I), ""),
    # bare addresses
    (re.compile(r"(?<![a-z0-9+.-])[a-z0-9+.-]+:(?:/|\\){2}[^\s<>\"'`|)\]}]*", re.I), ""),
    (re.compile(r"\b(?:java|vb|live)script\s*:\s*\S*", re.I), ""),
    (re.compile(r"\bdata:[\w.+-]+/[\w.+-]+[;,]\S*", re.I), ""),
    (re.compile(r"\b(?:mailto|blob|tel|xmpp|file|ftp|view-source):(?=\S)[^\s<>\"'`|)\]}]*", re.I), ""),
    (re.compile(r"(?<![\w:/])(?:\\\\|//)(?=[\w-]+\.)[^\s<>\"'`|)\]}]*"), ""),
    (re.compile(r"\bwww\d{0,3}\.[^\s<>\"'`|)\]}]*", re.I), ""),
    (re.compile(rf"(?<![\w.-])(?:[\w-]{{1,63}}\.){{1,127}}(?:{_TLD})[/?][^\s<>\"'`|)\]}}]*", re.I), ""),
)
_OPEN_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ROUNDS = 8


def _unescape(text: str) -> str:
    """Character references decoded, unless that makes a tag of what was written as text."""
    return re.sub(
        r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|colon|sol|period|lpar|rpar|lbrack|rbrack|excl|Tab|NewLine);?",
        lambda found: html.unescape(found[0]),
        text,
        flags=re.I,
    )


def strip_links(text: str) -> Stripped:
    """Visible text without links, pictures, HTML or addresses; a link's own words stay, [1] stays.

    Repeats until nothing changes, since taking one construct away can complete another around it.
    """
    removed = 0
    for _ in range(_ROUNDS):
        before, text = text, _unescape(visible(text))
        for pattern, kept in _RULES:
            text, count = pattern.subn(kept, text)
            removed += count
        if text == before:
            break
    else:  # still changing: an attack; break what is left rather than go on guessing
        text = text.replace("://", ": / /").replace("![", "! [")
    # what still looks like the start of a link or a tag starts none; a sum like "x <y" stays readable
    return Stripped(_OPEN_TAG.sub("< ", text.replace("](", "] (")), removed)
