"""What `bench faults` damages, and a stranger's way to alter it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ultrafast_rag.bench.trials import add_document, ask, copy_of, make_index, rows_for

__all__ = ["add_document", "ask", "change", "copy_of", "make_index", "rows_for"]


def change(index: Path, sql: str, *values: object) -> None:
    """Alter the database as a stranger could."""
    connection = sqlite3.connect(index / "index.sqlite")
    with connection:
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute(sql, values)
    connection.close()
