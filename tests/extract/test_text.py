"""Plain text, Markdown and code against texts written here."""

import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import CorruptError
from ultrafast_rag.extract.text import PART_CHARS, CodeExtractor, MarkdownExtractor, TextExtractor

WORDS = "Größe und Maß: naïve façade, 5 €."


def elements(extractor, path, **options):
    return [element for part in extractor(Config()).extract(path, **options) for element in part.elements]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_text_reads_every_common_encoding(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(f"{WORDS}\r\n\r\nSecond paragraph follows here.".encode(encoding))
    assert [e.text for e in elements(TextExtractor, path)] == [WORDS, "Second paragraph follows here."]


def test_text_parts_hold_everything_once_and_resume_anywhere(tmp_path):
    paragraphs = [f"Paragraph {n}: " + "word " * 80 for n in range(2000)]
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(paragraphs))
    parts = list(TextExtractor(Config()).extract(path))
    assert [part.number for part in parts] == list(range(len(parts)))
    assert len(parts) == 5  # 830 kB in slices of 200 kB
    assert all(sum(len(e.text) for e in part.elements) < 1.1 * PART_CHARS for part in parts)
    assert [e.text for part in parts for e in part.elements] == [p.strip() for p in paragraphs]
    assert list(TextExtractor(Config()).extract(path, start_part=3)) == parts[3:]


def test_text_without_any_line_break_is_cut_all_the_same(tmp_path):
    path = tmp_path / "one_line.txt"
    path.write_text("abc " * 300_000)
    texts = [e.text for e in elements(TextExtractor, path)]
    assert max(map(len, texts)) <= 2 * PART_CHARS + 100_000
    assert sum(text.count("abc") for text in texts) >= 300_000 - len(texts)


@pytest.mark.fault
def test_text_refuses_blank_and_binary_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(" \n\t\n")
    with pytest.raises(CorruptError, match="is empty"):
        elements(TextExtractor, path)
    path.write_bytes(bytes(range(256)))
    with pytest.raises(CorruptError, match="binary"):
        elements(TextExtractor, path)


MARKDOWN = """---
title: "The manual"
---
# Pump & valve

Some *soft* and **strong** words with a [link](https://example.org/x) and `code`,
over two lines with snake_case_names.

Section two
-----------

| part | torque |
|------|:------:|
| M8   | 25 Nm  |

```python
# not a heading

def f(): ...
```
<!-- a secret
comment -->
- one
- two
"""


def test_markdown_gives_headings_tables_and_code(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(MARKDOWN)
    found = elements(MarkdownExtractor, path)
    assert [(e.kind, e.level, e.text) for e in found] == [
        ("heading", 1, "Pump & valve"),
        ("text", 0, "Some soft and strong words with a link and code,\nover two lines with snake_case_names."),
        ("heading", 2, "Section two"),
        ("table", 0, "part | torque\nM8 | 25 Nm"),
        ("code", 0, "# not a heading\n\ndef f(): ..."),
        ("text", 0, "- one\n- two"),
    ]
    assert found[4].metadata == {"language": "python"}
    assert next(MarkdownExtractor(Config()).extract(path)).title == "The manual"


CODE = '''"""Module words."""

import os


@decorated
def first(x):
    def inner():
        return x
    return inner


# about the class
class Second:
    def method(self):
        return os
'''


def test_code_is_cut_at_top_level_definitions(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(CODE)
    found = elements(CodeExtractor, path)
    assert [(e.text.splitlines()[0], e.metadata["line"]) for e in found] == [
        ('"""Module words."""', 1),
        ("@decorated", 6),
        ("class Second:", 14),
    ]
    assert all(e.kind == "code" and e.metadata["language"] == "python" for e in found)
    assert "".join("".join(e.text.split()) for e in found) == "".join(CODE.split())


@pytest.mark.parametrize(
    ("name", "source", "starts"),
    [
        (
            "a.js",
            "const a = 1;\n\nexport function go() {\n  return a;\n}\n\nclass B {\n}\n",
            ["const a = 1;", "export function go() {", "class B {"],
        ),
        ("a.go", "package x\n\nfunc A() {\n}\n\nfunc (b *B) C() {\n}\n", ["package x", "func A() {", "func (b *B) C() {"]),
        (
            "a.c",
            "#include <x.h>\nint a;\n\nstatic int go(int x)\n{\n  return x;\n}\n\nvoid stop(void) {\n}\n",
            ["#include <x.h>", "static int go(int x)", "void stop(void) {"],
        ),
    ],
)
def test_code_is_cut_in_other_languages(tmp_path, name, source, starts):
    path = tmp_path / name
    path.write_text(source)
    assert [e.text.splitlines()[0] for e in elements(CodeExtractor, path)] == starts
