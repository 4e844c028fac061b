"""Which models a notebook runs with, and that what cannot be had is told."""

from __future__ import annotations

from pathlib import Path

from ultrafast_rag.errors import WeightsError
from ultrafast_rag.notebook import model_choice
from ultrafast_rag.notebook.model_choice import choose_models

DATA = Path(__file__).parents[2] / "data"


def chosen(table):
    return {row["what"]: (row["chosen"], row["why"]) for row in table}


def test_a_download_that_fails_falls_back_to_the_demonstration_and_says_why(monkeypatch):
    def cut_off(model, *, offline, **options):
        raise WeightsError("not on this disk" if offline else f"{model}: the connection broke")

    monkeypatch.setattr(model_choice, "_hub_answers", lambda: True)
    monkeypatch.setattr(model_choice, "resolve", cut_off)
    settings, table = choose_models(DATA, "auto")
    assert Path(settings["image_model"]).name == "demo-clip"
    assert Path(settings["speech_model"]).name == "demo-whisper"
    assert "the connection broke" in chosen(table)["image"][1]
    assert "the connection broke" in chosen(table)["speech"][1]


def test_a_hub_that_gives_the_files_is_used(monkeypatch):
    asked = []

    def found(model, *, offline, **options):
        if offline:
            raise WeightsError("not on this disk")
        asked.append(model)

    monkeypatch.setattr(model_choice, "_hub_answers", lambda: True)
    monkeypatch.setattr(model_choice, "resolve", found)
    settings, table = choose_models(DATA, "auto")
    assert asked == [settings["image_model"], f"openai/whisper-{settings['speech_model']}"]
    assert chosen(table)["image"][1].startswith("from the Hugging Face hub")
