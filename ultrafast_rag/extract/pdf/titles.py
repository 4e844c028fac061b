"""What a document is called: its metadata, where that is sane, else the largest type of its first page.

What many files share ("FORM 10-K", "Annual report") names none of them and follows the name of the one that has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ultrafast_rag.extract.pdf.layout import Line, body_size, count_sizes
from ultrafast_rag.extract.pdf.words import join_lines

_FILE_NAME = re.compile(
    r"\.(?:docx?|tex|dvi|indd|pdf|pptx?|qxd|rtf|ps|eps|png|jpe?g|tiff?|od[tps]|xlsx?|key|pages|html?|txt|md|cdr|ai|fm|p65)$|[\\/]\w+[\\/]",
    re.I,
)
_TOOL = re.compile(
    r"^(?:microsoft (?:word|powerpoint|excel)|untitled|(?:document|slide)\s?\d*$|powerpoint presentation|none$|title$|scan)"
    r"|^(?:cm|ec|sf|lm)(?:r|rm|bx|b|ti|ss|tt|sy|mi|sl|csc|ex)\w{0,3}\d{1,4}$",  # a font of TeX: "CMR10"
    re.I,
)
_SHARED = re.compile(
    r"^(?:(?:form|schedule)\s+[\dA-Z]+(?:[-–]\w+)?(?:/a)?"
    r"|(?:\d{4}\s+)?(?:annual|quarterly|half-year(?:ly)?|interim|financial|integrated|sustainability)\s+(?:report|review|statements?)"
    r"(?:\s+(?:and accounts|pursuant\b.*|\d{4}(?:[/–-]\d{2,4})?))*"
    r"|united states(?: of america)?|(?:(?:u\.?s\.?|united states)\s+)?securities and exchange commission"
    r"|proxy statement|prospectus|(?:press|news) release|(?:technical|working|white) ?(?:report|paper)|data ?sheet|draft"
    r"|user(?:'s|’s)? (?:guide|manual)|preprint|(?:research|original) (?:article|paper|research)|article|review|letter"
    r"|confidential|(?:(?:front|back) )?cover|(?:table of )?contents|agenda|abstract"
    r"|(?:executive )?summary|introduction|preface|foreword|overview"
    r"|inhalt(?:sverzeichnis)?|zusammenfassung|einleitung|vorwort|sommaire|résumé|índice|resumen|index|appendix|notes?|report"
    r"|presentation)\W*$",
    re.I,
)
_NUMBERED = re.compile(r"^(?:\d+(?:\.\d+)*|[IVX]+)\.?\s+\S|^\(?\d+\)\s")
_ADDRESS = re.compile(
    r"\b[A-Z]{2}\s+\d{5}\b|\bD\.C\.|@|https?://|www\.|\bp\.?\s?o\.?\s+box\b|\b\w+(?:straße|strasse)\s+\d|\+\d[\d ()-]{7,}"
    r"|^\d+\s+(?:\w+\s+){1,3}(?:street|st|avenue|ave|road|rd|drive|boulevard|blvd|plaza|lane|way)\b",
    re.I,
)
_KIND = re.compile(
    r"^(?:form|schedule|proxy|prospectus|.*\b(?:report|statements?|guide|manual)\b)", re.I
)  # worth saying after the name
_MOST_LINES = 5  # chosen
_LONGEST = 200  # characters; chosen: a paragraph is longer
_LARGER = 1.15  # than the page's body, to be a title


def is_title(text: str) -> bool:
    """Whether a text can name one document: words, and no file name, tool, section number, address or date."""
    if sum(map(str.isalpha, text)) < 3 or len(text) > _LONGEST * 1.5:
        return False
    return not (_FILE_NAME.search(text) or _TOOL.match(text) or _NUMBERED.match(text) or _ADDRESS.search(text))


def is_shared(text: str) -> bool:
    """Whether it names a kind of document, or a part that many have."""
    return bool(_SHARED.match(text.strip()))


def metadata_title(metadata: Mapping[str, Any]) -> str:
    """The title among a document's metadata, or "" where it is none."""
    title = " ".join(str(metadata.get("title") or "").replace("\0", "").split())
    return title[:300] if is_title(title) and not is_shared(title) else ""


def largest_title(groups: Sequence[list[Line]]) -> str:
    """The words of the largest type on a page that can name the document; "" where none stands out.

    One word alone gives way to words of some size above it: it is a logo.
    """
    sizes: Counter[float] = Counter()
    count_sizes(groups, sizes)
    body = body_size(sizes)
    kind = word = ""
    size = top = 0.0
    for lines in _by_size(groups, body):
        text = " ".join(join_lines([line.text for line in lines]).split())[:_LONGEST]
        if is_shared(text):
            kind = kind or (text if _KIND.match(text) else "")
        elif is_title(text) and not word and len(text.split()) == 1:
            word, size, top = text, lines[0].size, lines[0].y0
        elif is_title(text) and (not word or (lines[0].y0 < top and lines[0].size > 0.5 * size)):
            return f"{text}: {kind}" if kind else text
    return f"{word}: {kind}" if word and kind else word


def _by_size(groups: Sequence[list[Line]], body: float) -> Iterator[list[Line]]:
    """Lines of one size that follow one another, the largest first, down to little more than the body's size."""
    lines = [line for group in groups for line in group if line.size >= _LARGER * body and line.text.strip()]
    while lines:
        largest = max(line.size for line in lines)
        run = [line for line in lines if line.size >= 0.93 * largest]
        lines = [line for line in lines if line.size < 0.93 * largest]
        yield from _stacked(run)


def _stacked(run: list[Line]) -> Iterator[list[Line]]:
    """Lines of one size, those close below one another together."""
    run.sort(key=lambda line: (round(line.y0 / max(line.size, 1)), line.x0))
    stack: list[Line] = []
    for line in run:
        if stack and line.y0 - stack[-1].y1 > 0.9 * line.size:
            yield stack
            stack = []
        if len(stack) < _MOST_LINES:
            stack.append(line)
    if stack:
        yield stack
