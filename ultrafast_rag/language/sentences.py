"""Where sentences end, in any script: by punctuation and a short list of abbreviations.

A trained splitter is a model to load for a percent of boundaries; chunks and citations forgive those.
"""

from __future__ import annotations

import re

_SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*(\s+)(?=[\"'“‘«(\[]*[^\s\W_a-z])|[。！？](\s*)|(\n\s*\n)")
_ABBREVIATIONS = frozenset("dr mr ms mrs prof st fig figs eq vs cf e.g i.e al bzw z.b ca approx vol pp".split())
_LAST_WORD = re.compile(r"[\s(\[]")


def split_sentences(text: str) -> list[str]:
    """Sentences of running text in any script, in order, without surrounding blanks."""
    sentences: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        before = _LAST_WORD.split(text[max(start, end.start() - 12) : end.start()])[-1].casefold()
        if text[end.start()] == "." and (before in _ABBREVIATIONS or (len(before) == 1 and before.isalpha())):
            continue
        sentences.append(text[start : end.end()].strip())
        start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]
