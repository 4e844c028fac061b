"""Pieces of HTML that a notebook shows: escaped text, badges, bars, tables, pictures, players.

No scripts, no style sheet, no address outside the page: JupyterLab, Colab, Kaggle and GitHub each
strip something, so every piece carries its own style and still reads well without it. Colours are
translucent over the theme's own background, which is right in the light and in the dark.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence

from ultrafast_rag.types import Evidence, Table, cell_text

PICTURES = ("image/png", "image/jpeg", "image/webp", "image/gif")
SOUNDS = ("audio/mpeg", "audio/mp4", "audio/ogg", "audio/wav", "audio/x-wav", "audio/webm", "audio/flac", "audio/aac")
FILMS = ("video/mp4", "video/webm", "video/ogg")
_HUES = ("76,141,214", "224,145,58", "87,167,115", "178,121,199", "201,96,91", "74,168,176", "168,160,60", "141,141,141")
_LINE = "rgba(128,128,128,.3)"
MUTED = "opacity:.7;font-size:12px"
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_MAX_PIXELS = 50_000_000  # 200 MB decoded; a page at 600 dpi has 35 million
_SMALL_SHARE = 0.01  # of the whole: stages below it are shown together


def escape(text: object) -> str:
    """Text for HTML, in or out of an attribute; control and direction-override characters are dropped."""
    return html.escape(_UNSHOWABLE.sub("", str(text)), quote=True)


def clip(text: str, limit: int, *, around: str = "") -> str:
    """At most `limit` characters with an ellipsis where cut; the window holds `around` where it occurs."""
    if len(text) <= limit:
        return text
    at = text.find(around) if around else -1
    start = max(0, min(at - (limit - len(around)) // 3, len(text) - limit)) if at > 0 else 0
    end = start + limit
    return ("…" if start else "") + text[start:end].strip() + ("…" if end < len(text) else "")


def badge(text: str, *, hue: str = "128,128,128", title: str = "") -> str:
    """A small pill of text."""
    tip = f' title="{escape(title)}"' if title else ""
    style = (
        f"display:inline-block;padding:1px 8px;margin:0 4px 4px 0;border-radius:10px;font-size:12px;"
        f"background:rgba({hue},.16);border:1px solid rgba({hue},.45)"
    )
    return f'<span{tip} style="{style}">{escape(text)}</span> '


GOOD, WARN, BAD, COOL = "87,167,115", "224,145,58", "201,96,91", "76,141,214"


def card(body: str, *, hue: str = "128,128,128") -> str:
    """The frame around everything a card shows, with a coloured edge."""
    style = (
        "font-family:system-ui,sans-serif;font-size:14px;line-height:1.5;color:inherit;max-width:960px;"
        f"border:1px solid {_LINE};border-left:4px solid rgba({hue},.9);border-radius:8px;padding:12px 16px;margin:6px 0;"
        "overflow-wrap:anywhere;white-space:normal;text-align:start"
    )
    return f'<div style="{style}">{body}</div>'


def milliseconds(seconds: float) -> str:
    """A duration a person reads at a glance: '0.4 ms', '38 ms', '2.1 s', '3:05 min'."""
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def stage_bar(seconds: Mapping[str, float], *, label: str) -> str:
    """One bar cut by stage, and its legend in words; "" when nothing was timed."""
    timed = {name: float(value) for name, value in seconds.items() if value == value and value > 0}
    total = sum(timed.values())
    if not total:
        return ""
    small = {name: value for name, value in timed.items() if value < _SMALL_SHARE * total}
    if len(small) > 1:
        timed = {name: value for name, value in timed.items() if name not in small} | {"the rest": sum(small.values())}
    cuts, legend = [], []
    for (name, value), hue in zip(timed.items(), _HUES * (1 + len(timed) // len(_HUES))):
        cuts.append(f'<div style="width:{100 * value / total:.2f}%;background:rgba({hue},.85)"></div>')
        dot = f'<span style="color:rgb({hue})">■</span>'
        legend.append(f'<span style="white-space:nowrap;margin-right:12px">{dot} {escape(name)} {milliseconds(value)}</span>')
    bar = f'<div style="display:flex;height:8px;border-radius:4px;overflow:hidden;background:{_LINE}">{"".join(cuts)}</div>'
    words = f'<div style="{MUTED};margin-top:3px">{escape(label)} {milliseconds(total)}: &nbsp;{" ".join(legend)}</div>'
    return f'<div style="margin-top:12px">{bar}{words}</div>'


def notes_html(notes: Iterable[str], *, limit: int = 300, most: int = 12) -> str:
    """What the reader should know, as a list; "" for none."""
    kept = [note for note in notes if note]
    if not kept:
        return ""
    lines = [f'<li dir="auto">{escape(clip(note, limit))}</li>' for note in kept[:most]]
    if len(kept) > most:
        lines.append(f"<li>and {len(kept) - most} more</li>")
    return f'<ul style="{MUTED};margin:8px 0 0 0;padding-inline-start:18px">{"".join(lines)}</ul>'


def _cell(value: object, *, width: float | None, limit: int) -> str:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    align = "right;font-variant-numeric:tabular-nums;white-space:nowrap" if numeric else "start"
    place = f"text-align:{align};vertical-align:top;overflow-wrap:break-word"
    style = f"padding:3px 10px;border:0;border-bottom:1px solid {_LINE};{place}"
    bar = ""
    if width is not None:
        bar = f'<div style="height:4px;border-radius:2px;width:{width:.1f}%;background:rgba({COOL},.8);margin-left:auto"></div>'
    return f'<td dir="auto" style="{style}">{escape(clip(cell_text(value), limit))}{bar}</td>'


def table_html(
    rows: Sequence[Mapping[str, object]],
    *,
    title: str = "",
    notes: Iterable[str] = (),
    bars: Sequence[str] = (),
    most_rows: int = 100,
    cell_limit: int = 300,
) -> str:
    """Rows as an HTML table, columns in order of first sight, numbers to the right.

    bars: columns of non-negative numbers drawn as a bar, longest at the column's maximum.
    Rows over `most_rows` are counted, not shown.
    """
    table = Table([{str(name): value for name, value in row.items()} for row in rows])
    peaks = {
        name: max((float(v) for row in table if isinstance(v := row.get(name), (int, float)) and v == v), default=0.0)
        for name in bars
    }
    look = f"padding:3px 10px;border:0;border-bottom:2px solid {_LINE};text-align:start;overflow-wrap:normal"
    heads = "".join(f'<th style="{look}">{escape(clip(name, 80))}</th>' for name in table.columns)
    lines = []
    for row in table[:most_rows]:
        cells = []
        for name in table.columns:
            value, peak = row.get(name), peaks.get(name, 0.0)
            drawn = peak > 0 and isinstance(value, (int, float)) and value == value
            width = 100 * max(0.0, float(value)) / peak if drawn and isinstance(value, (int, float)) else None
            cells.append(_cell(value, width=width, limit=cell_limit))
        lines.append(f'<tr style="background:transparent">{"".join(cells)}</tr>')
    head = f'<div style="font-weight:600;margin-bottom:6px" dir="auto">{escape(clip(title, 200))}</div>' if title else ""
    more = f'<div style="{MUTED}">and {len(table) - most_rows} more rows</div>' if len(table) > most_rows else ""
    if not len(table):
        return f'{head}<div style="{MUTED}">no rows</div>{notes_html(notes)}'
    body = f'<thead><tr style="background:transparent">{heads}</tr></thead><tbody>{"".join(lines)}</tbody>'
    style = "border-collapse:collapse;border:0;font-size:13px;color:inherit;background:transparent;margin:0"
    return f'{head}<div style="overflow-x:auto"><table style="{style}">{body}</table></div>{more}{notes_html(notes)}'


def fit_picture(evidence: Evidence, size_bytes: int) -> Evidence | None:
    """The same picture in at most `size_bytes`, made smaller where it must be; None where it cannot be."""
    if len(evidence.data) <= size_bytes:
        return evidence
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(evidence.data), formats=("PNG", "JPEG", "WEBP", "GIF")) as opened:
            if opened.width * opened.height > _MAX_PIXELS:
                return None
            opened.draft("RGB", (900, 900))
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # Pillow's ways of saying that bytes are not a picture
        return None
    for width, quality in ((900, 70), (760, 60), (620, 50), (480, 45), (320, 40), (200, 35)):
        side = min(1.0, width / max(picture.size))
        smaller = picture.resize((max(1, round(picture.width * side)), max(1, round(picture.height * side))))
        out = io.BytesIO()
        smaller.save(out, "WEBP", quality=quality, method=4)
        if out.tell() <= size_bytes:
            return Evidence("image/webp", out.getvalue(), evidence.highlight, evidence.caption)
    return None


def _data_url(evidence: Evidence) -> str:
    return f"data:{evidence.media_type};base64,{base64.b64encode(evidence.data).decode('ascii')}"


def _highlight(box: tuple[float, float, float, float]) -> str:
    x0, y0, x1, y1 = (100 * min(1.0, max(0.0, value)) for value in box)
    place = f"left:{x0:.2f}%;top:{y0:.2f}%;width:{max(0.0, x1 - x0):.2f}%;height:{max(0.0, y1 - y0):.2f}%"
    look = "background:rgba(255,205,0,.3);outline:2px solid rgba(235,160,0,.85);border-radius:2px;mix-blend-mode:multiply"
    return f'<div style="position:absolute;{place};{look};pointer-events:none"></div>'


def evidence_html(evidence: Evidence, *, alt: str, tall: bool = False) -> str:
    """A picture with its passage marked, or a player at its second; "" for a type no browser shows. tall: as high as it is."""
    if evidence.media_type in PICTURES:
        height = "none" if tall else "260px"
        style = f"display:block;max-width:100%;max-height:{height};width:auto;height:auto;margin:0;border-radius:4px"
        picture = f'<img src="{_data_url(evidence)}" alt="{escape(clip(alt, 120))}" style="{style}">'
        mark = _highlight(evidence.highlight) if evidence.highlight else ""
        frame = "position:relative;display:inline-block;isolation:isolate;max-width:100%;background:#fff;border-radius:4px"
        shown = f'<div style="{frame};border:1px solid {_LINE};line-height:0">{picture}{mark}</div>'
    elif evidence.media_type in SOUNDS or evidence.media_type in FILMS:
        tag = "audio" if evidence.media_type in SOUNDS else "video"
        at = f"#t={max(0.0, evidence.start_s):.1f}"
        shown = f'<{tag} controls preload="metadata" src="{_data_url(evidence)}{at}" style="max-width:100%"></{tag}>'
    elif evidence.data:
        return ""
    else:  # words alone: what there was to see is gone
        shown = ""
    words = f'<div style="{MUTED}" dir="auto">{escape(clip(evidence.caption, 200))}</div>' if evidence.caption else ""
    return f"<div>{shown}{words}</div>"


def marked(text: str, quote: str, terms: Iterable[str] = ()) -> str:
    """Escaped text with the quote marked, or, where it is not found, the words of the question in bold."""
    cited = [piece for piece in quote.split(" … ") if piece and piece in text]  # sentences that stand apart in it
    if cited:
        style = "background:rgba(255,205,0,.32);color:inherit;border-radius:2px;padding:0 1px"
        pieces = re.split(f"({'|'.join(map(re.escape, sorted(cited, key=len, reverse=True)))})", text)
        marks = (f'<mark style="{style}">{escape(piece)}</mark>' if i % 2 else escape(piece) for i, piece in enumerate(pieces))
        return "".join(marks)
    words = sorted({term for term in terms if len(term) > 3}, key=len, reverse=True)[:20]
    if not words:
        return escape(text)
    pieces = re.split(rf"(\b(?:{'|'.join(map(re.escape, words))})\b)", text, flags=re.IGNORECASE)
    return "".join(f"<b>{escape(piece)}</b>" if i % 2 else escape(piece) for i, piece in enumerate(pieces))
