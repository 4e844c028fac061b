"""HTML as a reader sees it, against pages written here."""

import re

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError
from ultrafast_rag.extract.html import HtmlExtractor

PAGE = """<!DOCTYPE html><html><head><title> The  pump </title><style>p {}</style><script>alert("bad")</script></head>
<body><nav>Home | About</nav><!-- a comment -->
<header><h1>Pump <em>manual</em></h1></header>
<div>Loose words <b>in bold</b> stay.<p>First paragraph,<br>second line &amp; more.</p>
<p style="display: none">hidden text</p><p hidden>also hidden</p><span aria-hidden="true">icon</span></div>
<ul><li>one</li><li>two<ol><li>inner</li></ol></li></ul>
<table><caption>Torques</caption><tr><th>part</th><th>torque</th></tr><tr><td>M8</td><td>25 Nm</td></tr></table>
<pre><code class="language-python">def f():
    return 1</code></pre>
<h2>Care</h2><blockquote>Oil it.</blockquote><form><input><button>Send</button></form>
</body></html>"""


def read(tmp_path, markup, name="a.html"):
    path = tmp_path / name
    path.write_text(markup)
    return list(HtmlExtractor(Config()).extract(path))


def test_html_gives_what_is_visible_in_order(tmp_path):
    (part,) = read(tmp_path, PAGE)
    assert part.title == "The pump"
    assert part.total == 1
    assert [(e.kind, e.level, e.text) for e in part.elements] == [
        ("heading", 1, "Pump manual"),
        ("text", 0, "Loose words in bold stay."),
        ("text", 0, "First paragraph, second line & more."),
        ("text", 0, "- one\n- two\n  1. inner"),
        ("table", 0, "Torques\npart | torque\nM8 | 25 Nm"),
        ("code", 0, "def f():\n    return 1"),
        ("heading", 2, "Care"),
        ("text", 0, "Oil it."),
    ]
    assert part.elements[5].metadata == {"language": "python"}


def test_html_layout_tables_are_read_as_text_and_double_breaks_part_paragraphs(tmp_path):
    (part,) = read(tmp_path, "<table><tr><td>One long text.<br><br>Another<br>one.</td></tr></table>")
    assert [(e.kind, e.text) for e in part.elements] == [("text", "One long text."), ("text", "Another one.")]


def test_html_long_pages_come_in_parts_and_resume(tmp_path):
    parts = read(tmp_path, "".join(f"<p>paragraph {n}</p>" for n in range(1200)))
    assert [len(part.elements) for part in parts] == [500, 500, 200]
    assert list(HtmlExtractor(Config()).extract(tmp_path / "a.html", start_part=2)) == parts[2:]


@pytest.mark.parametrize(
    ("table", "text", "metadata"),
    [
        ("<caption>T</caption><tr><th>a<th>b<tr><td>1<td>2", "T\na | b\n1 | 2", {"caption": "T"}),
        ("<thead><tr><td>a<td>b<tr><td>c<td>d</thead><tr><td>1<td>2", "a | b\nc | d\n1 | 2", {}),
        ("<tr><th>a<td>1<tr><th>b<td>2", "a | 1\nb | 2", {}),  # names on the left only
        (
            "<tr><th colspan=2>sum<th>n<tr><td rowspan=2>M8<td>1<td>2<tr><td>3<td rowspan=9>4",
            "sum |  | n\nM8 | 1 | 2\nM8 | 3 | 4",
            {},
        ),
        ("<tr><td colspan=99999>a<td>b<tr><td colspan=x>1<td>2", "a\n1 | 2", {}),
        (  # as filings have it: signs and spaces in cells of their own, heads over both
            "<tr><td><td><td colspan=2>2018<td><td><td colspan=2>2017<td><tr><td>Cash<td><td>$<td>5<td><td><td>$<td>(6<td>)"
            "<tr><td>Debt<td><td><td>7<td><td><td><td>8<td><tr><td>Rate<td><td><td>1<td>%<td><td><td>2<td>%",
            " | 2018 | 2017\nCash | $ 5 | $ (6)\nDebt | 7 | 8\nRate | 1% | 2%",
            {},
        ),
        (
            "<tr><td><td colspan=2>Low<td><td colspan=2>High<tr><td>May<td><td>5<td><td><td>6<tr><td>June<td><td>7<td><td><td>8",
            " | Low | High\nMay | 5 | 6\nJune | 7 | 8",
            {},
        ),
    ],
)
def test_html_tables_keep_captions_and_columns(tmp_path, table, text, metadata):
    closed = re.sub(r"<(t[dh])([^>]*)>([^<]*)", r"<\1\2>\3</\1>", table).replace("<tr>", "</tr><tr>")
    (part,) = read(tmp_path, f"<table>{closed}</tr></table>")
    assert [(e.kind, e.text, e.metadata) for e in part.elements] == [("table", text, metadata)]


@pytest.mark.fault
def test_html_nested_beyond_reason_is_a_typed_error(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("<div>" * 3_000 + "deep words" + "</div>" * 3_000)
    with pytest.raises(CorruptError, match="too deep"):
        list(HtmlExtractor(Config()).extract(path))
    (part,) = read(tmp_path, "<div>" * 100 + "deep words" + "</div>" * 100)
    assert [e.text for e in part.elements] == ["deep words"]
