"""Evidence cards: answers, hits, reports and tables as HTML that any notebook shows.

Importing this file registers the drawing functions in `types.HTML_REPRS`. A card stays under
`CARD_BYTES`: its words come first, pictures and clips share what is left, best hit first.
A card never fails to draw because a piece of evidence is gone: it says so in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ultrafast_rag.errors import UltraFastRAGError
from ultrafast_rag.language.sentences import closest, split_sentences
from ultrafast_rag.notebook import markup
from ultrafast_rag.notebook.markup import BAD, COOL, GOOD, MUTED, WARN, badge, card, clip, escape, milliseconds
from ultrafast_rag.types import HTML_REPRS, Answer, Citation, Evidence, EvidenceSource, Hit, Hits, IngestReport, Table, cell_text

CARD_BYTES = 60_000  # chosen: a notebook of a hundred answers stays under 6 MB
_SHOWN, _WITH_EVIDENCE, _LISTED = 4, 3, 12  # chosen: what one looks at without scrolling
_SMALL_PICTURE = 7_000  # bytes kept for each picture still to come
_CITE = re.compile(r"( ?)\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_STOP = frozenset("the and for are was were what which who how does did with that this from into when where why can you".split())


class Budget:
    """Bytes a card may still spend on pictures and clips, shared between those that are to come."""

    def __init__(self, size_bytes: int, pieces: int) -> None:
        self.size_bytes, self.pieces = size_bytes, pieces

    def fit(self, evidence: Evidence) -> Evidence | None:
        """The evidence in this piece's share (base64 makes four bytes of three), or None.

        A clip may also take what a small picture for each later piece leaves; one too long for that is made shorter.
        """
        self.pieces = max(1, self.pieces)
        share = max(0, self.size_bytes // self.pieces) * 3 // 4 - 100
        spare = max(share, (self.size_bytes - (self.pieces - 1) * _SMALL_PICTURE) * 3 // 4 - 100)
        self.pieces -= 1
        if evidence.smaller is not None and len(evidence.data) > spare:
            evidence = evidence.smaller(share) or evidence
        if evidence.media_type in markup.PICTURES:
            fitted = markup.fit_picture(evidence, share)
        else:
            fitted = evidence if len(evidence.data) <= spare else None
        if fitted:
            self.size_bytes -= len(fitted.data) * 4 // 3 + 100
        return fitted


def _evidence(hit: Hit, source: EvidenceSource | None, budget: Budget) -> str:
    """The hit's evidence as HTML, or a line that says why it is not shown; "" where there is none."""
    if source is None or budget.size_bytes <= 0:
        return ""
    try:
        found = source(hit)
    except (UltraFastRAGError, OSError) as error:
        return f'<div style="{MUTED}">not shown: {escape(clip(str(error), 160))}</div>'
    if found is None:
        return ""
    fitted = budget.fit(found)
    if fitted is None:
        kind = found.media_type.split("/")[0]
        large = len(found.data) > CARD_BYTES  # in no card
        why = f"of {len(found.data) / 1e6:.1f} MB: too large to show here" if large else "has no room in this card"
        return f'<div style="{MUTED}">{escape(found.media_type if large else kind)} {why}</div>'
    if fitted.caption == hit.where:  # the heading says it already
        fitted = replace(fitted, caption="")
    return markup.evidence_html(fitted, alt=hit.where)


def _number(number: int | None) -> str:
    if number is None:
        return ""
    style = (
        f"display:inline-block;min-width:18px;padding:0 5px;border-radius:9px;text-align:center;font-size:11px;line-height:18px;"
        f"font-weight:700;background:rgba({COOL},.22);border:1px solid rgba({COOL},.6)"
    )
    return f'<span style="{style}">{number}</span>'


def _score(hit: Hit) -> str:
    legs = [f"meaning {hit.dense_score:.2f}"] if hit.dense_score == hit.dense_score else []
    legs += [f"words {hit.lexical_score:.1f}"] if hit.lexical_score >= 0.05 else []  # NaN too says nothing
    words = f"score {hit.score:.2f}" + (f" ({', '.join(legs)})" if legs else "")
    return f'<span style="{MUTED}">{words}</span>'


def _support(support: float | None) -> str:
    """The calibrated chance that the answer is supported, as a bar and in percent; nothing where nobody judged it."""
    if support is None:
        return ""
    hue = GOOD if support >= 0.6 else COOL if support >= 0.3 else WARN  # thirds, but for what is nearly certain
    track = "display:inline-block;vertical-align:middle;width:56px;height:5px;border-radius:3px;background:rgba(128,128,128,.28)"
    fill = (
        f'<span style="display:block;width:{100 * support:.0f}%;height:5px;border-radius:3px;background:rgba({hue},.95)"></span>'
    )
    title = "calibrated chance that the passages answer the question as said"
    bar = f'<span style="{track}">{fill}</span>'
    return f'<span style="{MUTED};white-space:nowrap" title="{title}">{bar} support {support:.0%}</span> '


def _terms(question: str) -> list[str]:
    return [word for word in re.findall(r"\w+", question.lower()) if word not in _STOP][:20]


def _asked(hit: Hit, query: str) -> str:
    """The sentence of a passage of text that shares most with the question; "" where none stands out."""
    sentences = split_sentences(hit.text) if hit.modality == "text" else []
    return closest(sentences, frozenset(_terms(query))) if len(sentences) > 1 else ""


def _flat(hit: Hit, text: str) -> str:
    """Rows of a table keep their line breaks; the breaks of a printed page mean nothing."""
    return text.strip() if hit.modality == "table" else " ".join(text.split())


def _hit(
    hit: Hit, *, number: int | None, shown: str, first: bool = False, quote: str = "", terms: Sequence[str] = (), limit: int
) -> str:
    text, cited = _flat(hit, hit.text), _flat(hit, quote)[: 3 * limit // 4]
    keep = "white-space:pre-wrap;font-family:ui-monospace,monospace;font-size:12px" if hit.modality == "table" else ""
    body = markup.marked(clip(text, limit, around=cited.split(" … ")[0]), cited, terms)
    section = " › ".join(part for part in (hit.title, *hit.section.split(" > ")) if part)
    named = _letters(hit.where)
    section = "" if _letters(section) in named else section  # a picture's file name is its title
    body = "" if _letters(text) in named else body
    under = f'<div style="{MUTED}" dir="auto">{escape(clip(section, 140))}</div>' if section else ""
    head = (
        f'<div style="display:flex;flex-wrap:wrap;gap:2px 10px;align-items:baseline">{_number(number)} '
        f'<b><bdi>{escape(clip(hit.where, 120))}</bdi></b> <span style="{MUTED}">{escape(hit.modality)}</span> '
        f'<span style="flex:1"></span>{_score(hit)}</div>{under}'
    )
    words = f'<div dir="auto" style="flex:1 1 300px;min-width:0;margin-top:4px;{keep}">{body}</div>' if body else ""
    media = f'<div style="flex:1 1 300px;min-width:0;max-width:520px">{shown}</div>' if shown else ""
    rule = "padding:10px 0" + ("" if first else ";border-top:1px solid rgba(128,128,128,.3)")
    return (
        f'<div style="{rule}">{head}<div style="display:flex;flex-wrap:wrap;gap:8px 16px;margin-top:4px">'
        f"{words}{media}</div></div>"
    )


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def _line(hit: Hit, *, limit: int) -> str:
    text = escape(clip(_flat(hit, hit.text), limit))
    where = f"<b><bdi>{escape(clip(hit.where, 120))}</bdi></b> <span>{escape(hit.modality)} · {hit.score:.2f}</span>"
    return f'<li style="margin:6px 0">{where}<div dir="auto">{text}</div></li>'


def _more(hits: Sequence[Hit], *, limit: int) -> str:
    if not hits:
        return ""
    lines = "".join(_line(hit, limit=limit) for hit in hits[:_LISTED])
    rest = f'<div style="{MUTED}">and {len(hits) - _LISTED} more in the list</div>' if len(hits) > _LISTED else ""
    noun = "passage" if len(hits) == 1 else "passages"
    summary = f'<summary style="cursor:pointer;{MUTED}">{len(hits)} more {noun}</summary>'
    return f'<details style="margin-top:4px">{summary}<ol style="font-size:13px;margin:4px 0">{lines}</ol>{rest}</details>'


def _passages(hits: Hits, citations: Sequence[Citation], budget: Budget, *, limit: int) -> str:
    """The first hits in full with their evidence, the others folded away as text."""
    numbers = {citation.hit.chunk_id: citation for citation in reversed(citations)}
    ranked: list[Hit] = list({citation.hit.chunk_id: citation.hit for citation in citations}.values())
    ranked += [hit for hit in hits if hit.chunk_id not in numbers]
    full = max(_SHOWN if not citations else min(len(numbers), 2 * _SHOWN), 1)
    drawn: list[str] = []
    for place, found in enumerate(ranked[:full]):
        cited = numbers.get(found.chunk_id)
        number = cited.number if cited else (None if citations else place + 1)
        quote = cited.quote if cited else ""
        hit = replace(found, focus=quote or found.focus or _asked(found, hits.query))
        shown = _evidence(hit, hits.evidence, budget) if place < _WITH_EVIDENCE else ""
        terms = () if citations else _terms(hits.query)
        drawn.append(_hit(hit, number=number, shown=shown, first=not drawn and not number, quote=quote, terms=terms, limit=limit))
    return "".join(drawn) + _more(ranked[full:], limit=limit // 3)


Mark = Callable[[int, str], str]
"""How a citation is drawn in an answer's text: its number and where it points, as it reads -> HTML."""


def pill(number: int, where: str) -> str:
    """A citation as a number that tells where it points."""
    style = f"font-size:11px;font-weight:700;padding:0 4px;border-radius:8px;background:rgba({COOL},.22);white-space:nowrap"
    return f'<sup title="{escape(where)}" style="{style}">[{number}]</sup>'


def _inline(text: str, known: Mapping[int, str], mark: Mark) -> str:
    """One line of an answer: escaped, citations as `mark` draws them, **bold** and `code`."""

    def pills(match: re.Match[str]) -> str:
        numbers = [int(number) for number in match[2].split(",")]
        if not all(number in known for number in numbers):
            return match[0]
        space = "&nbsp;" if match[1] else ""  # a citation stays on the line of what it supports
        return space + "".join(mark(n, known[n]) for n in numbers)

    line = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escape(text))
    return _CITE.sub(pills, re.sub(r"`([^`]+)`", r"<code>\1</code>", line))


def answer_text(text: str, citations: Sequence[Citation] = (), *, limit: int = 8000, mark: Mark = pill) -> str:
    """An answer's paragraphs and bullet points as HTML; everything else in it is shown as written."""
    known = {citation.number: clip(citation.hit.where, 120) for citation in citations}
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", clip(text.strip(), limit)):
        points: list[str] = []
        lines: list[str] = []
        for line in paragraph.splitlines():
            if bullet := re.match(r"\s*[-*•]\s+(.*)", line):
                points.append(f"<li>{_inline(bullet[1], known, mark)}</li>")
            elif points:
                points.append(f"<div>{_inline(line, known, mark)}</div>")
            else:
                lines.append(_inline(line, known, mark))
        blocks += [f'<p dir="auto" style="margin:6px 0">{"<br>".join(lines)}</p>'] if lines else []
        blocks += [f'<ul dir="auto" style="margin:4px 0;padding-inline-start:22px">{"".join(points)}</ul>'] if points else []
    return "".join(blocks)


def _within(draw: Callable[[Budget, float], str], pieces: int, most_bytes: int = CARD_BYTES) -> str:
    """Draw the words, then once more with what is left for evidence; shorter words where those alone are too long."""
    drawn = ""
    for shorten in (1.0, 0.5, 0.25, 0.1, 0.03):
        words = draw(Budget(0, 0), shorten)
        left = most_bytes - len(words.encode()) - 1500  # 1500: frames, captions and highlights around the evidence
        drawn = draw(Budget(left, pieces), shorten) if pieces and left > 4000 else words
        if len(drawn.encode()) < most_bytes:
            return drawn
    return drawn


def hits_html(hits: Hits) -> str:
    """Hits as a card: query, time, notes, passages with evidence."""

    def draw(budget: Budget, shorten: float) -> str:
        noun = "hit" if len(hits) == 1 else "hits"
        query = f" for <b><bdi>{escape(clip(hits.query, int(300 * shorten) + 20))}</bdi></b>" if hits.query else ""
        seconds = f'<span style="{MUTED}">in {milliseconds(hits.seconds)}</span>'
        head = f'<div style="margin-bottom:6px">{len(hits)} {noun}{query} {seconds}</div>'
        body = _passages(hits, (), budget, limit=int(700 * shorten) + 20)
        return card(head + body + markup.notes_html(hits.notes, limit=int(300 * shorten) + 20), hue=COOL)

    return _within(draw, min(_WITH_EVIDENCE, len(hits)))


def answer_html(answer: Answer, *, mark: Mark = pill, most_bytes: int = CARD_BYTES) -> str:
    """An answer as a card: text with citations, who wrote it, its evidence, where the time went."""
    total = sum(answer.timings_s.values())

    def draw(budget: Budget, shorten: float) -> str:
        limit = int(300 * shorten) + 20
        question = f'<div dir="auto" style="{MUTED};font-size:13px">{escape(clip(answer.question, limit))}</div>'
        text = answer_text(answer.text, answer.citations, limit=int(8000 * shorten) + 20, mark=mark)
        if not answer.supported:
            text = badge("Not supported by these documents", hue=WARN) + text
        marks = _support(answer.support)
        marks += badge(clip(answer.generator, 80), hue=COOL, title=clip(answer.reason, limit))
        marks += badge("from the cache", hue=GOOD) if answer.cached else ""
        marks += badge(milliseconds(total)) + badge(f"cost ${answer.cost_usd:.4f}" if answer.cost_usd else "cost $0")
        why = f'<span style="{MUTED}" dir="auto">{escape(clip(answer.reason, limit))}</span>' if answer.reason else ""
        body = f'{question}<div style="font-size:15.5px;margin:4px 0 8px">{text}</div>'
        body += f'<div style="margin-bottom:6px">{marks}{why}</div>'
        body += _passages(answer.hits, answer.citations, budget, limit=int(700 * shorten) + 20)
        body += markup.stage_bar(answer.timings_s, label="time")
        notes = tuple(dict.fromkeys((*answer.notes, *answer.hits.notes)))
        return card(body + markup.notes_html(notes, limit=limit), hue=GOOD if answer.supported else WARN)

    return _within(draw, min(_WITH_EVIDENCE, max(len(answer.hits), len(answer.citations))), most_bytes)


def hit_html(hit: Hit) -> str:
    """One hit as a card of words; its evidence belongs to the Hits it came in."""

    def draw(budget: Budget, shorten: float) -> str:
        return card(_hit(hit, number=None, shown="", first=True, limit=int(4000 * shorten) + 20), hue=COOL)

    return _within(draw, 0)


def _tiles(values: Mapping[str, str]) -> str:
    tile = "display:inline-block;min-width:84px;margin:0 18px 8px 0;vertical-align:top"
    return "".join(
        f'<div style="{tile}"><div style="font-size:20px;font-weight:600;line-height:1.25">{escape(value)}</div>'
        f'<div style="{MUTED}">{escape(name)}</div></div> '
        for name, value in values.items()
    )


def report_html(report: IngestReport) -> str:
    """An ingest report as a card: counts, pace, where the time went, what failed and why."""
    counted = ("documents", "pages", "chunks", "embedded", "cache_hits", "unchanged")
    tiles = {name.replace("_", " "): cell_text(getattr(report, name)) for name in counted}
    tiles |= {"pages a minute": cell_text(round(report.pages_per_minute)), "wall time": milliseconds(report.seconds)}

    def draw(budget: Budget, shorten: float) -> str:
        limit = int(300 * shorten) + 20
        state = "" if report.complete else badge("Not complete: run the same ingest again to resume", hue=WARN)
        body = f"<div>{state}</div>{_tiles(tiles)}" if state else _tiles(tiles)
        body += markup.stage_bar(report.stage_seconds, label="work by stage (stages overlap)")
        if report.failed:
            rows = [{"failed": clip(source, limit), "why": why} for source, why in report.failed]
            body += f'<div style="margin-top:10px">{markup.table_html(rows, most_rows=30, cell_limit=limit)}</div>'
        hue = BAD if report.failed else GOOD if report.complete else WARN
        return card(body + markup.notes_html(report.notes, limit=limit), hue=hue)

    return _within(draw, 0)


def table_card(table: Table) -> str:
    """A table as a card."""

    def draw(budget: Budget, shorten: float) -> str:
        rows, limit = max(3, int(100 * shorten)), int(300 * shorten) + 10
        return card(
            markup.table_html(table, title=table.title, notes=table.notes, bars=table.bars, most_rows=rows, cell_limit=limit)
        )

    return _within(draw, 0)


HTML_REPRS.update({Hit: hit_html, Hits: hits_html, Answer: answer_html, IngestReport: report_html, Table: table_card})
