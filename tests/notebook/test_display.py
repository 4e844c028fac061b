"""Evidence cards: what a browser is given is parsed back and judged, not matched as text."""

from __future__ import annotations

import base64
import io
import random
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from ultrafast_rag.errors import StorageError
from ultrafast_rag.notebook import display, markup
from ultrafast_rag.types import Answer, Citation, Evidence, Facts, Hit, Hits, IngestReport, Table

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<svg/onload=alert(1)><iframe src=https://evil.example></iframe>",
    "</div></details><style>*{display:none}</style>",
    "javascript:alert(1) ![x](https://evil.example/a.png) [y](javascript:alert(1))",
    "**<b onclick=alert(1)>** `<script>` \u202egnp.exe\x00\ud800",
)
ALLOWED_TAGS = frozenset(
    "div span b bdi p ul ol li sup br code mark details summary table thead tbody tr th td img audio video".split()
)
ALLOWED_ATTRIBUTES = frozenset("style title dir alt src controls preload".split())
VOID = frozenset({"img", "br"})


class Page(HTMLParser):
    """Tags, attributes, and the text a person reads; the stack proves that nothing was closed early."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.stack: list[str] = []
        self.feed(source)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def safe(source: str) -> Page:
    source.encode("utf-8")  # a lone surrogate would stop the notebook from being saved
    page = Page(source)
    assert set(page.tags) <= ALLOWED_TAGS
    for tag, name, value in page.attributes:
        assert name in ALLOWED_ATTRIBUTES, (tag, name)
        if name == "src":
            assert value.startswith("data:"), value
        if name == "style":
            assert "url(" not in value
            assert "expression" not in value
    return page


def picture(width=1600, height=900, kind="PNG") -> bytes:
    noise = Image.frombytes("RGB", (width, height), random.Random(7).randbytes(width * height * 3))
    out = io.BytesIO()
    noise.save(out, kind)
    return out.getvalue()


def hit(number=1, **changes) -> Hit:
    fields = {"chunk_id": number, "document_id": "d", "source": f"docs/file{number}.pdf", "modality": "text", "score": 1 / number}
    return Hit(**{**fields, "text": f"Passage {number} about the lighthouse.", "page": number, **changes})


def answer(hits: Hits, **changes) -> Answer:
    cited = tuple(Citation(n, h, h.text) for n, h in enumerate(hits[:2], 1))
    fields = {"question": "Where?", "text": "On the cape [1]. And [2].", "hits": hits, "citations": cited}
    return Answer(**{**fields, "timings_s": {"encode": 0.001, "dense": 0.003}, **changes})


@pytest.mark.parametrize("nasty", HOSTILE)
def test_card_shows_hostile_text_only_as_text(nasty):
    one = hit(1, text=nasty * 3, source=nasty, title=nasty, section=nasty, metadata={nasty: nasty})
    hits = Hits(
        [one, *(hit(n, text=nasty, source=nasty) for n in range(2, 9))],
        query=nasty,
        notes=(nasty,),
        evidence=lambda h: Evidence("image/png", picture(40, 30), (0.1, 0.1, 0.5, 0.5), nasty),
    )
    full = answer(
        hits,
        question=nasty,
        text=f"{nasty} [1]\n\n- {nasty} [2]",
        citations=(Citation(1, one, nasty), Citation(2, hits[1], nasty)),
        generator=nasty,
        reason=nasty,
        notes=(nasty,),
        timings_s={nasty: 1.0},
    )
    report = IngestReport(1, failed=((nasty, nasty),), notes=(nasty,), seconds=1.0, stage_seconds={nasty: 1.0})
    table = Table([{nasty: nasty, "n": 1.0}], nasty, notes=(nasty,), bars=("n",))
    for value in (full, hits, one, report, table):
        safe(value._repr_html_())
    visible = nasty.translate({0: None, 0x202E: None, 0xD800: None})
    assert visible in safe(table._repr_html_()).text


@pytest.mark.parametrize("kind", ["image/svg+xml", "text/html", 'image/png" onload="x', "application/pdf"])
def test_evidence_of_a_type_that_could_run_code_is_not_embedded(kind):
    hits = Hits([hit()], evidence=lambda h: Evidence(kind, b"<svg onload='alert(1)'/>"))
    page = safe(hits._repr_html_())
    assert not {"img", "audio", "video"} & set(page.tags)


def test_card_stays_small_when_evidence_is_large_and_still_shows_it():
    large = picture()
    assert len(large) > 1_000_000
    hits = Hits([hit(n) for n in range(1, 30)], evidence=lambda h: Evidence("image/png", large, (0.25, 0.5, 0.75, 1.0)))
    for value in (hits, answer(hits)):
        drawn = value._repr_html_()
        assert len(drawn.encode()) < 60_000
        pictures = [text for tag, name, text in safe(drawn).attributes if (tag, name) == ("img", "src")]
        assert len(pictures) >= 2
        for url in pictures:
            kind, data = url.split(",", 1)
            assert kind == "data:image/webp;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
                assert abs(shown.width / shown.height - 1600 / 900) < 0.02


@pytest.mark.parametrize("letter", ["x", "&", "語", "<", '"', " a"])
def test_card_stays_small_whatever_the_text(letter):
    long = letter * 50_000
    hits = Hits([hit(n, text=long, source=long, title=long) for n in range(1, 300)], query=long, notes=(long,) * 50)
    values = (
        hits,
        hits[0],
        answer(hits, text=f"{long} [1]\n" * 3, question=long, generator=long, reason=long, notes=(long,) * 50),
        answer(hits, citations=tuple(Citation(n, h, long) for n, h in enumerate(hits, 1))),
        IngestReport(failed=((long, long),) * 500, notes=(long,) * 500),
        Table([{"a": long, "b": n} for n in range(1000)], long),
    )
    for value in values:
        drawn = value._repr_html_()
        assert len(drawn.encode()) < 60_000
        safe(drawn)


def test_highlight_lies_on_the_picture_in_percent_and_never_outside():
    drawn = markup.evidence_html(Evidence("image/png", picture(20, 10), (0.25, 0.5, 0.75, 1.5)), alt="p")
    styles = [value for tag, name, value in safe(drawn).attributes if name == "style" and "position:absolute" in value]
    assert len(styles) == 1
    assert "left:25.00%;top:50.00%;width:50.00%;height:50.00%" in styles[0]


def test_sound_and_film_play_at_their_second():
    for kind, tag in (("audio/ogg", "audio"), ("video/mp4", "video")):
        hits = Hits([hit(modality=tag, start_s=65.0)], evidence=lambda h, kind=kind: Evidence(kind, b"clip", start_s=2.5))
        sources = [value for name, key, value in safe(hits._repr_html_()).attributes if (name, key) == (tag, "src")]
        assert sources == [f"data:{kind};base64,{base64.b64encode(b'clip').decode()}#t=2.5"]
        assert "file1.pdf, 1:05" in safe(hits._repr_html_()).text


def test_clip_too_large_is_named_with_its_size():
    hits = Hits([hit()], evidence=lambda h: Evidence("audio/wav", bytes(3_000_000)))
    assert "audio/wav of 3.0 MB: too large to show here" in safe(hits._repr_html_()).text


@pytest.mark.parametrize("error", [StorageError("docs/file1.pdf is gone"), FileNotFoundError("docs/file1.pdf is gone")])
def test_card_says_why_evidence_is_missing_when_its_source_is_gone(error):
    def gone(_: Hit) -> Evidence:
        raise error

    page = safe(Hits([hit()], evidence=gone)._repr_html_())
    assert "docs/file1.pdf is gone" in page.text
    assert "Passage 1 about the lighthouse." in page.text


def test_bytes_that_are_no_picture_leave_the_card_standing():
    hits = Hits([hit()], evidence=lambda h: Evidence("image/png", b"\x89PNG\r\n\x1a\n" + bytes(100_000)))
    assert "Passage 1" in safe(hits._repr_html_()).text


def test_answer_card_says_who_answered_at_what_cost_and_marks_known_citations_only():
    hits = Hits([hit(1), hit(2)])
    said = {"generator": "gemini:flash", "cached": True, "cost_usd": 0.0123, "notes": ("one link removed",)}
    page = safe(answer(hits, text="On the cape [1, 2]. See [7].", **said)._repr_html_())
    tips = [value for tag, name, value in page.attributes if (tag, name) == ("sup", "title")]
    assert tips == ["file1.pdf, page 1", "file2.pdf, page 2"]
    for words in ("gemini:flash", "from the cache", "cost $0.0123", "4.0 ms", "See [7].", "one link removed", "dense 3.0 ms"):
        assert words in page.text
    assert "Not supported" not in page.text


def test_unsupported_answer_is_visibly_marked():
    page = safe(answer(Hits([hit()]), text="Not found.", citations=(), supported=False)._repr_html_())
    assert "Not supported by these documents" in page.text


def test_quote_is_marked_in_its_passage_even_deep_in_a_long_one():
    text = "before " * 400 + "the lamp was lit in 1870" + " after" * 400
    hits = Hits([hit(text=text)])
    drawn = answer(hits, citations=(Citation(1, hits[0], "the lamp was\nlit in 1870"),))._repr_html_()
    assert "the lamp was lit in 1870</mark>" in drawn


def test_words_of_the_question_stand_out_in_plain_hits():
    drawn = Hits([hit()], query="What about (the) Lighthouse?")._repr_html_()
    assert "<b>lighthouse</b>" in drawn


def test_every_passage_says_its_direction_to_the_browser():
    page = Page(Hits([hit(text="המגדלור נבנה")])._repr_html_())
    assert ("div", "dir", "auto") in page.attributes


def test_report_card_says_what_failed_and_what_to_do():
    report = IngestReport(
        2, 30, 90, failed=(("a.pdf", "needs a password"),), seconds=2.0, stage_seconds={"extract": 1.0}, complete=False
    )
    page = safe(report._repr_html_())
    for words in ("a.pdf", "needs a password", "run the same ingest again", "900", "extract 1.0 s"):
        assert words in page.text


def test_table_draws_bars_against_the_columns_maximum_and_counts_hidden_rows():
    speeds = {"a": 1.0, "b": 4.0, None: float("nan")}
    table = Table([{"name": name, "speed": speed} for name, speed in speeds.items()], bars=("speed",))
    drawn = table._repr_html_()
    widths = [value for _, name, value in safe(drawn).attributes if name == "style" and "height:4px" in value]
    assert [style.split("width:")[1].split("%")[0] for style in widths] == ["25.0", "100.0"]
    assert "and 400 more rows" in markup.table_html([{"a": 1}] * 500)
    assert "no rows" in safe(Table()._repr_html_()).text


def test_same_objects_read_well_as_plain_text():
    hits = Hits([hit()], query="Where?", notes=("no picture model",))
    text = str(answer(hits, citations=(Citation(1, hits[0], "x"),)))
    assert "[1] file1.pdf, page 1" in text
    assert "note: no picture model" in str(hits)
    assert str(Hits([hits[0]], query="lamp")).startswith("1 hit for 'lamp' in ")
    assert str(Table([{"a": 1, "b": 0.12345}, {"a": 20_000}], "T")).splitlines() == [
        "T", "     a      b", "------  -----", "     1  0.123", "20,000",
    ]  # fmt: skip


def test_a_table_breaks_long_cells_in_a_narrow_terminal_and_nowhere_else(monkeypatch):
    table = Table([{"n": 7, "reason": "the quick brown fox jumps over the lazy dog", "to do": "nothing"}])
    assert str(table).splitlines()[2] == "7  the quick brown fox jumps over the lazy dog  nothing"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    assert str(table).splitlines() == [
        "n  reason                        to do",
        "-  ----------------------------  -------",
        "7  the quick brown fox jumps     nothing",
        "   over the lazy dog",
    ]


def test_what_stats_tells_takes_a_row_for_each_part_where_it_is_long():
    facts = Facts(documents=1, spent={}, latency={f"stage {n}": {"count": n, "p50_ms": 1.5, "of": None} for n in range(6)})
    assert [row["what"] for row in facts.table()] == ["documents", *(f"latency: stage {n}" for n in range(6))]
    assert facts.table()[-1]["value"] == "count 5, p50 ms 1.5"


def test_import_brings_in_nothing_heavy():
    code = (
        "import ultrafast_rag.types, sys; before = set(sys.modules); import ultrafast_rag.notebook.display;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before} - {'ultrafast_rag'};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_package_root_draws_results_and_offers_the_panel():
    code = (
        "import ultrafast_rag as u; from ultrafast_rag.types import Hits; assert '<div' in Hits()._repr_html_();"
        "u.UltraFastRAG; from ultrafast_rag.rag import EDGES; assert callable(EDGES['widget']);"
        "import sys; print(sorted({'torch', 'faiss', 'openvino', 'transformers', 'ipywidgets', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_drawing_functions_are_registered_for_every_shown_type():
    assert {Hit, Hits, Answer, IngestReport, Table} <= set(display.HTML_REPRS)
