"""What people say of answers: one JSON line a judgement, in a file of the index folder that any program reads.

A passage is named by the sha256 of its text, which outlives a new ingest; chunk numbers do not.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from ultrafast_rag.files import open_inside, write_all
from ultrafast_rag.types import Chunk

FILE = "judgements.jsonl"


def append_judgement(folder: Path, question: str, chunk: Chunk | None, verdict: int) -> None:
    """Add a line: question, chunk (sha256 of the passage's text), source, page, verdict (1 or -1), time (UTC).

    chunk None: said of the answer as a whole; chunk, source and page are null. OSError when the disk refuses.
    """
    row = {
        "question": question,
        "chunk": hashlib.sha256(chunk.text.encode()).hexdigest() if chunk else None,
        "source": chunk.source if chunk else None,
        "page": chunk.page if chunk else None,
        "verdict": verdict,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    fd = open_inside(folder, FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        write_all(fd, (json.dumps(row, ensure_ascii=False) + "\n").encode())
    finally:
        os.close(fd)
