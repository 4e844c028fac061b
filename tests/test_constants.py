"""A number that decides something says where it comes from: a comment on its line or above, or a docstring below."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "ultrafast_rag"
NUMBERS = (ast.Constant, ast.UnaryOp, ast.BinOp, ast.Tuple, ast.operator, ast.unaryop, ast.expr_context)


def is_numeric(value: ast.expr) -> bool:
    """Numbers alone, put together by arithmetic or in a tuple."""
    nodes = list(ast.walk(value))
    numbers = [node.value for node in nodes if isinstance(node, ast.Constant)]
    return bool(numbers) and all(type(n) in (int, float) for n in numbers) and all(isinstance(n, NUMBERS) for n in nodes)


def unexplained(source: str) -> tuple[int, list[int]]:
    """How many numeric constants a module has, and the lines of those that say nothing."""
    comments = {t.start[0] for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
    lines, body = source.splitlines(), ast.parse(source).body
    count, found = 0, []
    for node, after in zip(body, [*body[1:], None]):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None or not is_numeric(node.value):
            continue
        count += 1
        above = node.lineno - 1
        while above and lines[above - 1].strip() and not lines[above - 1].startswith("#"):
            above -= 1  # a comment stands for the lines under it, up to an empty one
        documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        own = comments & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if not (own or documented or (above and lines[above - 1].startswith("#"))):
            found.append(node.lineno)
    return count, found


def test_every_numeric_constant_says_where_it_comes_from():
    total, silent = 0, []
    for path in PACKAGE.rglob("*.py"):
        count, lines = unexplained(path.read_text(encoding="utf-8"))
        total += count
        silent += [f"{path.relative_to(PACKAGE)}:{line}" for line in lines]
    assert total > 200
    assert not silent


def test_a_number_without_a_word_is_found():
    assert unexplained("LIMIT = 5\n") == (1, [1])
    assert unexplained("import re\n\nRATES = (1, -2.5)\nNAME = 'a'\n") == (1, [3])
    assert unexplained("LIMIT = 5  # as the standard says\n\n# of both\nA = 1\nB = 2\n\nC = 3 << 20\n'''Bytes.'''\n") == (4, [])
