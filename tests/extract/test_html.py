"""HTML as a reader sees it, against pages written here."""

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


@pytest.mark.fault
def test_html_nested_beyond_reason_is_a_typed_error(tmp_path):
    path = tmp_path / "a.html"
    path.write_text("<div>" * 3_000 + "deep words" + "</div>" * 3_000)
    with pytest.raises(CorruptError, match="too deep"):
        list(HtmlExtractor(Config()).extract(path))
    (part,) = read(tmp_path, "<div>" * 100 + "deep words" + "</div>" * 100)
    assert [e.text for e in part.elements] == ["deep words"]
