"""The doctor: it says what is missing and what to do, and never fails over what it is there to find."""

from __future__ import annotations

import json
import shutil

import pytest

from ultrafast_rag import doctor
from ultrafast_rag.cli import main
from ultrafast_rag.rag import UltraFastRAG

NO_MODELS = {"image_model": None, "speech_model": None, "quiet": True, "offline": True}


def rows(rag: UltraFastRAG) -> dict[str, dict[str, str]]:
    return {row["check"]: row for row in rag.doctor()}


def test_missing_text_weights_are_a_row_that_says_what_to_do():
    with UltraFastRAG(text_model="nobody/no-such-encoder", **NO_MODELS) as rag:
        row = rows(rag)["model text"]
    assert row["value"].startswith("missing")
    assert "hf download nobody/no-such-encoder" in row["reason"]


def test_the_command_line_diagnoses_missing_text_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [f"{name}={json.dumps(value)}" for name, value in {**NO_MODELS, "text_model": "nobody/no-such-encoder"}.items()]
    assert main(["doctor", "--json", *(word for setting in settings for word in ("--set", setting))]) == 0
    assert "no weights for 'nobody/no-such-encoder'" in capsys.readouterr().out


def test_an_index_of_another_model_is_a_row_too(tmp_path):
    with UltraFastRAG(tmp_path / "ix", **NO_MODELS) as rag:
        rag.add_texts(["Ships need harbours."])
        rag._store.set_meta("fingerprints", {"text": "other/encoder@0000000000000000|mean"})
    with UltraFastRAG(tmp_path / "ix", **NO_MODELS) as rag:
        assert "other/encoder" in rows(rag)["model text"]["reason"]


def test_a_nearly_full_disk_is_said(monkeypatch):
    with UltraFastRAG(**NO_MODELS) as rag:
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**8))
        found = rows(rag)
    for check in ("index", "cache"):
        assert found[check]["value"].endswith("0.1 GB free on its disk")
        assert "little room" in found[check]["reason"]


def test_missing_tools_are_named_with_the_command(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with UltraFastRAG(**NO_MODELS) as rag:
        row = rows(rag)["tesseract"]
    assert (row["value"], "apt-get install -y tesseract-ocr" in row["reason"]) == ("missing", True)


def test_free_memory_is_the_containers_where_that_is_less(tmp_path, monkeypatch):
    files = {"/proc/meminfo": "MemTotal:       16000000 kB\nMemAvailable:   8000000 kB\n"}

    class Files:
        def __init__(self, name: str) -> None:
            self.name = name

        def read_text(self) -> str:
            if self.name not in files:
                raise FileNotFoundError(self.name)
            return files[self.name]

    monkeypatch.setattr(doctor, "Path", Files)
    assert doctor.free_memory_gb() == pytest.approx(8.192)
    group = "/sys/fs/cgroup/memory."
    files |= {f"{group}max": "max\n", f"{group}current": "2000000000\n"}
    assert doctor.free_memory_gb() == pytest.approx(8.192)
    files[f"{group}max"] = "3000000000\n"
    assert doctor.free_memory_gb() == pytest.approx(1.0)
    files.clear()
    assert doctor.free_memory_gb() is None
