"""`bench cache` on tiny numbers: every row is there, and what is counted is right."""

from __future__ import annotations

import json
import shutil

import pytest

from ultrafast_rag.bench import run


@pytest.mark.long
def test_every_claim_has_a_row(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {"group": 1, "asked": "How deep is the harbour?", "then": "What is the depth of the harbour?", "same": True},
        {"group": 1, "asked": "How deep is the harbour?", "then": "How deep was the harbour in 1904?", "same": False},
        {"group": 2, "asked": "When was the mill sold?", "then": "In which year was the mill sold?", "same": True},
        {"group": 2, "asked": "When was the mill sold?", "then": "Where was the mill sold?", "same": False},
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(["cache", "--calls", "3", "--rounds", "1", "--pairs", str(pairs), "--out", str(tmp_path / "cache.json")])
    values = {row["measured"]: row["value"] for row in result.table}
    assert values["executions of 100 identical concurrent queries"] == 1
    if shutil.which("redis-server"):
        assert values["failed of 240 searches while Redis is killed"] == 0
    assert values["semantic cache, paraphrases that hit, all groups"] == 100
    assert values["semantic cache, traps that hit, all groups"] == 0
    tiers = {name for name in ("memory", "disk", "redis") if f"exact hit, {name}, p50" in values}
    assert tiers == {"memory", "disk", *(["redis"] if shutil.which("redis-server") else [])}
    assert all(value > 0 for name, value in values.items() if name.startswith(("exact", "embed", "64", "1 000")))
    assert json.loads((tmp_path / "cache.json").read_text())["rows"]
