"""Elements -> chunks: sentence-bounded passages counted in the encoder's own tokens.

Sentences are tokenized once, in one call a part; a chunk's `token_ids` are the concatenation of its
sentences' ids, which for word-piece vocabularies equals tokenizing the joined text. A chunk never
crosses a part (a page, a window of sound), so that its citation is exact. The title and the section
path go into `Chunk.context`: encoded and searched, never shown as the passage. What stands at the head of the
page ("Consolidated balance sheets (in millions)") goes into the chunk's metadata, for word search alone.

Four chunkers: "sentence" (default), "fixed" (a token count, blind to sentences: the baseline),
"semantic" (also breaks where neighbouring sentences drift apart in meaning) and "hierarchical"
(sentence chunks that remember their section, so that search can widen a hit to it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.language.rows import CELL, head_lines
from ultrafast_rag.language.sentences import split_sentences
from ultrafast_rag.ports import Tokenizer
from ultrafast_rag.types import MOMENTS, PAGE_HEAD, BBox, Chunk, Element, ElementKind, Modality, Part, Vectors

SPECIAL_TOKENS = 2  # begin and end, added by every encoder we load
_MODALITY_OF: dict[ElementKind, Modality] = {"table": "table", "image": "image", "frame": "video"}
# of the context are encoded with a passage, the innermost heading first: whole paths were 30 % of all tokens of a
# textbook, these 14 %, and they are worth it. Pages found, nDCG@10 (89 questions, 2026-11): 24 tokens .931, 12 .925, none
# .894, none but the section's own vector added to the passage's .915. Word search has the whole path
CONTEXT_TOKENS = 24
CONTEXT_SHARE = 0.25  # of a chunk's budget at most

MOST_HEADINGS = 4  # directly after one another are all kept as a path; more are a list, and a passage of their own

HEAD_SHARE = 0.4  # of a piece of a table, at most, are its column heads
LEAD_IN = 240  # characters of a sentence before a table that says what it shows
PAGE_LINE = 80  # characters: a shorter text between two pieces of a table is a page number, or "(continued)"

_PIECE = re.compile(r"\s*\S+")
_ALONE: frozenset[ElementKind] = frozenset({"heading", "table", "image", "frame"})

Embed = Callable[[Sequence[Sequence[int]]], Vectors]


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence (or a row, or a line of code) with its tokens and the element it stood in."""

    text: str
    ids: tuple[int, ...]
    element: Element
    starts_element: bool


class Chunker:
    """Makes one `DocumentChunker` a document. `embed` is needed by the semantic chunker only."""

    def __init__(self, config: Config, tokenizer: Tokenizer, *, embed: Embed | None = None) -> None:
        self.kind = config.chunker
        self.overlap = config.chunk_overlap
        self.speech_s = config.speech_chunk_s
        self.tokenizer = tokenizer
        self.budget = min(config.chunk_tokens, tokenizer.max_tokens - SPECIAL_TOKENS)
        self.embed = embed

    def tokens(self, passages: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
        """Of stored passages (context, text): the tokens they were chunked with, where the vocabulary is of word pieces."""
        texts = self.tokenizer.tokenize([text for _, text in passages])
        contexts = {context: self.fit_context(context) for context in dict.fromkeys(context for context, _ in passages)}
        return [(*contexts[context], *ids)[: self.budget] for (context, _), ids in zip(passages, texts)]

    def fit_context(self, context: str) -> tuple[int, ...]:
        """Tokens of the innermost headings that fit, outermost first; a heading too long by itself is cut."""
        room = min(CONTEXT_TOKENS, int(self.budget * CONTEXT_SHARE))
        names = context.split(" > ") if context else []
        kept: list[int] = []
        for ids in reversed(self.tokenizer.tokenize(names)):
            if kept and len(ids) + len(kept) > room:
                break
            kept = [*ids, *kept][:room]
        return tuple(kept)

    def start(self, *, title: str = "", section: str = "", film: bool = False) -> DocumentChunker:
        """A chunker for one document; `section` is where an interrupted one had got to."""
        return DocumentChunker(self, title=title, section=section, film=film)


class DocumentChunker:
    """Chunks the parts of one document in order, remembering title and section between them."""

    def __init__(self, chunker: Chunker, *, title: str, section: str, film: bool) -> None:
        self._chunker = chunker
        self._title = title
        self._speech: Modality = "video" if film else "audio"
        self._headings: list[tuple[int, str]] = [(level, name) for level, name in enumerate(section.split(" > "), 1) if name]
        self._lead = ""  # a sentence that led to a table on the part's next page
        self._open: tuple[int, list[str]] = (-1, [])  # the part that ended with a table, and that table's heads

    @property
    def section(self) -> str:
        """Headings in effect after the last part: 'Chapter > Section'; what `start` takes to resume."""
        return " > ".join(name for _, name in self._headings)

    def chunk(self, part: Part) -> list[Chunk]:
        """The part's chunks in reading order; ordinals count within the part."""
        self._title = part.title or self._title
        if part.apart:
            self._headings = []
        chunks: list[Chunk] = []
        run: list[Element] = []
        elements, self._lead = _led_in(self._continued(part), self._lead if part.number == self._open[0] + 1 else "")
        self._open = (part.number, _heads_at_the_end(elements))
        for group in _groups(elements):
            if group[0].kind == "heading":
                run += group
                continue
            chunks.extend(self._enter(run))
            run = []
            chunks.extend(self._chunk_group(group))
        chunks.extend(self._enter(run, last=True))
        return [replace(_headed(chunk, part.head), ordinal=n, part=part.number) for n, chunk in enumerate(chunks)]

    def _continued(self, part: Part) -> Sequence[Element]:
        """The part's elements; a table that goes on from the last page, with as many columns and no heads, gets that one's."""
        at, heads = self._open
        first = next((n for n, element in enumerate(part.elements) if _says_something(element)), None)
        if not heads or part.number != at + 1 or first is None or part.elements[first].kind != "table":
            return part.elements
        lines = part.elements[first].text.split("\n")
        if head_lines(lines) > 0 or lines[0].count(CELL) != heads[-1].count(CELL):
            return part.elements
        whole = replace(part.elements[first], text="\n".join([*heads, *lines]))
        return [*part.elements[:first], whole, *part.elements[first + 1 :]]

    def _enter(self, run: Sequence[Element], *, last: bool = False) -> Iterator[Chunk]:
        """Take headings that directly follow one another into the path, every one of them.

        What no passage would carry becomes one: more headings than a path should hold (a list of contents), and those
        that close a part (a title page, a divider, a bold line at its foot).
        """
        if not run:
            return
        highest = min(max(1, heading.level) for heading in run)
        above = [(at, name) for at, name in self._headings if at < highest]
        if last or len(run) > MOST_HEADINGS:
            self._headings = above
            yield from self._listed(run)
        entered: list[tuple[int, str]] = []
        for heading in run:
            level = max(1, heading.level)
            kept = [(at, name) for at, name in entered if at < level or len(run) <= MOST_HEADINGS]
            entered = [*kept, (level, " ".join(heading.text.split()))]
        self._headings = [*above, *entered]

    def _context(self) -> str:
        names = [name for _, name in self._headings]
        if self._title and (not names or names[0] != self._title):
            names.insert(0, self._title)
        return " > ".join(names)

    def _listed(self, run: Sequence[Element]) -> Iterator[Chunk]:
        """A run of headings as a passage of its own, in pieces that fit the encoder."""
        context = self._context()
        context_ids = self._chunker.fit_context(context)
        budget = self._chunker.budget - len(context_ids)
        for window in self._windows(list(self._sentences(run, budget)), budget, "heading"):
            yield self._make(window, context, context_ids, "text")

    def _chunk_group(self, group: Sequence[Element]) -> Iterator[Chunk]:
        context = self._context()
        context_ids = self._chunker.fit_context(context)
        budget = self._chunker.budget - len(context_ids)
        kind = group[0].kind
        modality = self._modality(kind)
        if kind in ("image", "frame"):
            for element in group:
                ids = self._chunker.tokenizer.tokenize([element.text])[0][:budget] if element.text else []
                sentence = _Sentence(element.text, tuple(ids), element, True)
                yield self._make([sentence], context, context_ids, modality)
            return
        sentences = list(self._sentences(group, budget))
        if kind == "table":
            windows = self._table_windows(sentences, budget)
        else:
            windows = self._windows(sentences, budget, kind)
        for number, window in enumerate(windows):
            chunk = self._make(window, context, context_ids, modality)
            yield chunk if number == 0 else replace(chunk, data=None)

    def _table_windows(self, rows: list[_Sentence], budget: int) -> Iterator[list[_Sentence]]:
        """Pieces of a table, each under its column heads; of heads too long the lowest, where they leave room for rows."""
        end = head_lines([row.text for row in rows])
        start = end
        while start > 0 and sum(len(row.ids) for row in rows[start - 1 : end]) <= budget * HEAD_SHARE:
            start -= 1
        heads = rows[start:end]
        room = budget - sum(len(row.ids) for row in heads)
        for number, window in enumerate(self._windows([*rows[:start], *rows[end:]], room, "table")):
            over = min(start, len(window)) if number == 0 else 0  # a caption that is not repeated stands above the heads
            yield [*window[:over], *heads, *window[over:]]

    def _modality(self, kind: ElementKind) -> Modality:
        if kind == "speech":
            return self._speech
        return _MODALITY_OF.get(kind, "text")

    def _sentences(self, group: Sequence[Element], budget: int) -> Iterator[_Sentence]:
        """Every sentence of the group with its tokens; one longer than the budget is cut at words."""
        fixed = self._chunker.kind == "fixed"
        pieces: list[tuple[str, Element, bool]] = []
        for element in group:
            for n, text in enumerate(split_words(element.text) if fixed else split_element(element)):
                pieces.append((text, element, n == 0))
        ids = self._chunker.tokenizer.tokenize([text for text, _, _ in pieces])
        for (text, element, first), tokens in zip(pieces, ids):
            if len(tokens) <= budget:
                yield _Sentence(text, tuple(tokens), element, first)
                continue
            for n, (cut, cut_ids) in enumerate(self._cut(text, budget)):
                yield _Sentence(cut, cut_ids, element, first and n == 0)

    def _cut(self, text: str, budget: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Halve at a word (at a character where there are no spaces) until every piece fits."""
        ids = tuple(self._chunker.tokenizer.tokenize([text])[0])
        words = _PIECE.findall(text)
        if len(ids) <= budget or len(text) < 2:
            yield text.strip(), ids[:budget]
            return
        middle = sum(len(word) for word in words[: len(words) // 2]) if len(words) > 1 else len(text) // 2
        yield from self._cut(text[:middle], budget)
        yield from self._cut(text[middle:], budget)

    def _windows(self, sentences: list[_Sentence], budget: int, kind: str) -> Iterator[list[_Sentence]]:
        """Greedy windows of whole sentences; the last `overlap` of one open the next."""
        overlap = self._chunker.overlap if kind in ("text", "speech") and self._chunker.kind != "fixed" else 0
        breaks = self._drifts(sentences) if self._chunker.kind == "semantic" and kind == "text" else frozenset()
        window: list[_Sentence] = []
        used = fresh = 0
        for n, sentence in enumerate(sentences):
            full = used + len(sentence.ids) > budget or self._too_long(window, sentence)
            if window and (full or (n in breaks and used > budget // 4)):
                if fresh:
                    yield window
                carried = window[-overlap:] if overlap and n not in breaks else []
                # an overlap that leaves no room for the new sentence would be repeated for nothing
                while carried and sum(len(s.ids) for s in carried) + len(sentence.ids) > budget:
                    carried = carried[1:]
                fits = sum(len(s.ids) for s in carried) <= budget // 3 and not self._too_long(carried, sentence)
                carried = carried if fits else []
                window, used, fresh = list(carried), sum(len(s.ids) for s in carried), 0
            window.append(sentence)
            used += len(sentence.ids)
            fresh += 1
        if window and fresh:
            yield window

    def _too_long(self, window: Sequence[_Sentence], sentence: _Sentence) -> bool:
        """Whether a passage of speech would take longer than somebody wants to listen for an answer."""
        # sentences of one element share its seconds: between them there is no place to break
        if not window or not sentence.starts_element or sentence.element.kind != "speech":
            return False
        start_s, end_s = window[0].element.start_s, sentence.element.end_s
        return start_s is not None and end_s is not None and end_s - start_s > self._chunker.speech_s

    def _drifts(self, sentences: list[_Sentence]) -> frozenset[int]:
        """Sentences whose cosine to the one before lies a standard deviation under the mean."""
        if self._chunker.embed is None or len(sentences) < 4:
            return frozenset()
        vectors = self._chunker.embed([sentence.ids for sentence in sentences])
        cosines = np.einsum("nd,nd->n", vectors[1:], vectors[:-1])
        return frozenset((np.flatnonzero(cosines < cosines.mean() - cosines.std()) + 1).tolist())

    def _make(self, window: Sequence[_Sentence], context: str, context_ids: tuple[int, ...], modality: Modality) -> Chunk:
        first, last = window[0].element, window[-1].element
        rows = first.kind in ("table", "code")
        metadata = dict(first.metadata)
        if first.kind == "speech" and (moments := _moments(window)):
            metadata[MOMENTS] = moments
        if self._chunker.kind == "hierarchical":
            metadata["section"] = context
        return Chunk(
            text=_join(window, "\n" if rows else " "),
            modality=modality,
            context=context,
            page=first.page,
            bbox=_union([s.element.bbox for s in window]),
            start_s=first.start_s,
            end_s=last.end_s,
            token_ids=(*context_ids, *(i for s in window for i in s.ids)),
            data=first.data,
            metadata=metadata,
        )


def split_element(element: Element) -> list[str]:
    """Sentences of prose and speech; lines of code and tables."""
    if element.kind in ("code", "table"):
        return [line.rstrip() for line in element.text.split("\n") if line.strip()]
    return split_sentences(element.text)


def _headed(chunk: Chunk, head: str) -> Chunk:
    """The chunk with those lines of its page's head that neither its text nor its context holds."""
    said = " ".join(f"{chunk.context} {chunk.text}".split())
    missing = [line for line in head.split("\n") if line and line not in said]
    return replace(chunk, metadata={**chunk.metadata, PAGE_HEAD: "\n".join(missing)}) if missing else chunk


def _led_in(elements: Sequence[Element], lead: str) -> tuple[list[Element], str]:
    """The elements, each table under the sentence that leads to it ("Future minimum lease payments were:"), and what leads on.

    lead: from the page before; a page number does not part it from its table.
    """
    led: list[Element] = []
    for element in elements:
        if element.kind == "table" and lead and lead not in element.text:
            element = replace(element, text=f"{lead}\n{element.text}")
        if element.kind not in ("text", "heading"):  # a heading below a colon is a column's
            lead = ""
        elif element.kind == "text" and (_says_something(element) or element.text.rstrip().endswith(":")):
            sentences = split_sentences(element.text)
            lead = sentences[-1] if sentences and sentences[-1].endswith(":") and len(sentences[-1]) <= LEAD_IN else ""
        led.append(element)
    return led, lead


def _says_something(element: Element) -> bool:
    return element.kind == "table" or len(element.text) > PAGE_LINE


def _heads_at_the_end(elements: Sequence[Element]) -> list[str]:
    """Column heads of the table that these elements end with; none where they end with something else."""
    last = next((element for element in reversed(elements) if _says_something(element)), None)
    if last is None or last.kind != "table":
        return []
    lines = last.text.split("\n")
    return [line for line in lines[: head_lines(lines)] if CELL in line]


def split_words(text: str) -> list[str]:
    """Words with the blanks before them dropped: the units of the fixed chunker."""
    return text.split()


def _groups(elements: Sequence[Element]) -> Iterator[list[Element]]:
    """Runs of one kind in reading order; a table, a heading and a picture stand alone."""
    run: list[Element] = []
    for element in elements:
        if run and (element.kind in _ALONE or run[0].kind != element.kind):
            yield run
            run = []
        run.append(element)
    if run:
        yield run


def _join(window: Sequence[_Sentence], glue: str) -> str:
    text = window[0].text
    for sentence in window[1:]:
        text += ("\n" if sentence.starts_element and sentence.element.kind != "speech" else glue) + sentence.text
    return text


def _moments(window: Sequence[_Sentence]) -> list[list[float]]:
    """[first character of the text, second] of each stretch of speech in it but one alone."""
    at, moments = 0, list[list[float]]()
    for sentence in window:
        if sentence.element.start_s is not None and (sentence.starts_element or not moments):
            moments.append([at, round(sentence.element.start_s, 2)])
        at += len(sentence.text) + 1
    return moments if len(moments) > 1 else []


def _union(boxes: Sequence[BBox | None]) -> BBox | None:
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    x0, y0, x1, y1 = zip(*known)
    return min(x0), min(y0), max(x1), max(y1)
