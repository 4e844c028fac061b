"""What is tried, chosen, remembered and used; the clock is made of numbers, the encoder of sleepless ones."""

from __future__ import annotations

import pytest

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.models.tune import BUDGETS, Tried, Tuned, best_of, tune, tuned


class Machine:
    """A clock, and encoders that move it on by what their settings cost here."""

    def __init__(self, cost_s):
        self.now, self.cost_s, self.opened, self.closed = 0.0, cost_s, [], 0

    def clock(self):
        return self.now

    def open(self, settings):
        self.opened.append((settings.batch_tokens, settings.threads))
        machine = self

        class Encoder:
            def tokenize(self, texts):
                return [[1] * 100 for _ in texts]

            def encode_tokens(self, tokens):
                for setting in (settings.batch_tokens, f"{settings.threads} threads"):
                    machine.now += machine.cost_s.get(setting, 0.5)

        return Encoder()

    def close(self, encoder):
        self.closed += 1

    def tune(self, folder, **options):
        return tune("encoder", folder, self.open, self.close, clock=self.clock, **options)


def test_a_clearly_faster_budget_is_remembered(tmp_path):
    machine = Machine({2048: 0.0})
    table = machine.tune(tmp_path, limit_s=1000.0)
    assert machine.opened == [(budget, None) for budget in (None, *BUDGETS)]
    assert machine.closed == len(machine.opened)
    assert [row["settings"] for row in table if row["chosen"]] == ["2048 tokens a batch"]
    assert "2048 tokens a batch: 2.00 times faster than the defaults; remembered" in table.notes[0]
    assert tuned(tmp_path, "encoder") == Tuned(2048)
    assert tuned(tmp_path, "another") == Tuned()


def test_threads_are_tried_under_the_best_budget(tmp_path):
    machine = Machine({2048: 0.1, "4 threads": 0.1})
    table = machine.tune(tmp_path, limit_s=1000.0, cores=8)
    assert machine.opened[len(BUDGETS) + 1 :] == [(2048, 4), (2048, 7)]
    assert [row["settings"] for row in table if row["chosen"]] == ["2048 tokens a batch, 4 threads"]
    assert tuned(tmp_path, "encoder") == Tuned(2048, 4)
    machine = Machine({"1 threads": 0.1})
    machine.tune(tmp_path, limit_s=1000.0, cores=2)
    assert machine.opened[-1] == (None, 1)
    assert tuned(tmp_path, "encoder") == Tuned(None, 1)


def test_the_default_stays_without_a_clear_gain_and_replaces_an_old_finding(tmp_path):
    Machine({512: 0.0}).tune(tmp_path, limit_s=1000.0)
    table = Machine({512: 0.49}).tune(tmp_path, limit_s=1000.0)
    assert "the defaults stay" in table.notes[0]
    assert tuned(tmp_path, "encoder") == Tuned()
    default = Tried(Tuned(), 100.0)
    assert best_of([default, Tried(Tuned(512), 104.9)]) is default
    assert best_of([default, Tried(Tuned(512), 105.0)]).tuned == Tuned(512)


def test_it_stops_before_its_time_is_over_and_says_so(tmp_path):
    machine = Machine({})  # 4 s for each setting
    table = machine.tune(tmp_path, limit_s=11.0, cores=4)
    assert machine.opened == [(None, None), (512, None)]
    assert machine.now <= 11.0
    assert "not all was tried" in table.notes[1]
    with pytest.raises(ConfigError, match="limit_s"):
        machine.tune(tmp_path, limit_s=0.0)


def test_a_busy_machine_teaches_nothing(tmp_path):
    table = Machine({512: 0.0}).tune(tmp_path, limit_s=1000.0, busy=True)
    assert "not remembered" in table.notes[0]
    assert tuned(tmp_path, "encoder") == Tuned()


def test_what_was_found_is_used_unless_the_config_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("ultrafast_rag.models.registry.tuned", lambda folder, name: Tuned(777, 1))
    settings = {"image_model": None, "speech_model": None, "quiet": True}
    with UltraFastRAG(config=Config(**settings)) as rag:
        assert (rag._models._text_config(rag.config).batch_tokens, rag._models._text_config(rag.config).threads) == (777, 1)
    with UltraFastRAG(config=Config(batch_tokens=99, threads=3, **settings)) as rag:
        assert (rag._models._text_config(rag.config).batch_tokens, rag._models._text_config(rag.config).threads) == (99, 3)
        assert rag._models.text().encode(["as many threads as asked for"]).shape == (1, 384)


def test_an_index_tunes_its_own_encoder_and_names_the_engine(tmp_path, monkeypatch):
    monkeypatch.setattr("ultrafast_rag.models.registry.is_busy", lambda plan: True)  # nothing is remembered
    with UltraFastRAG(image_model=None, speech_model=None, quiet=True) as rag:
        before = rag._models.text().encode(["the same"])
        table = rag.tune(limit_s=0.01)
        assert [row["settings"] for row in table] == ["default"]
        assert table[0]["tokens/s"] > 0
        assert any(note.startswith("engine ") for note in table.notes)
        assert (rag._models.text().encode(["the same"]) == before).all()
