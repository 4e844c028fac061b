"""What is tried, chosen, remembered and used; the clock is made of numbers, the encoder of sleepless ones."""

from __future__ import annotations

import pytest

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.models.tune import BUDGETS, Tried, best_of, tune, tuned_tokens


class Machine:
    """A clock, and encoders that move it on by what a budget costs here."""

    def __init__(self, cost_s):
        self.now, self.cost_s, self.opened, self.closed = 0.0, cost_s, [], 0

    def clock(self):
        return self.now

    def open(self, budget):
        self.opened.append(budget)
        machine = self

        class Encoder:
            def tokenize(self, texts):
                return [[1] * 100 for _ in texts]

            def encode_tokens(self, tokens):
                machine.now += machine.cost_s.get(budget, 1.0)

        return Encoder()

    def close(self, encoder):
        self.closed += 1

    def tune(self, folder, **options):
        return tune("encoder", folder, self.open, self.close, clock=self.clock, **options)


def test_a_clearly_faster_budget_is_remembered(tmp_path):
    machine = Machine({2048: 0.5})
    table = machine.tune(tmp_path, limit_s=1000.0)
    assert machine.opened == [None, *BUDGETS]
    assert machine.closed == len(machine.opened)
    assert [row["batch"] for row in table if row["chosen"]] == ["2048 tokens"]
    assert "2048 tokens a batch, 2.00 times faster; remembered" in table.notes[0]
    assert tuned_tokens(tmp_path, "encoder") == 2048
    assert tuned_tokens(tmp_path, "another") is None


def test_the_default_stays_without_a_clear_gain_and_replaces_an_old_finding(tmp_path):
    Machine({512: 0.5}).tune(tmp_path, limit_s=1000.0)
    table = Machine({512: 0.97}).tune(tmp_path, limit_s=1000.0)
    assert "the default stays" in table.notes[0]
    assert tuned_tokens(tmp_path, "encoder") is None
    assert best_of([Tried(None, 100.0), Tried(512, 104.9)]).batch_tokens is None
    assert best_of([Tried(None, 100.0), Tried(512, 105.0)]).batch_tokens == 512


def test_it_stops_before_its_time_is_over(tmp_path):
    machine = Machine({})  # 4 s for each budget
    machine.tune(tmp_path, limit_s=11.0)
    assert machine.opened == [None, 512]
    assert machine.now <= 11.0
    with pytest.raises(ConfigError, match="limit_s"):
        machine.tune(tmp_path, limit_s=0.0)


def test_a_busy_machine_teaches_nothing(tmp_path):
    table = Machine({512: 0.5}).tune(tmp_path, limit_s=1000.0, busy=True)
    assert "not remembered" in table.notes[0]
    assert tuned_tokens(tmp_path, "encoder") is None


def test_what_was_found_is_used_unless_the_config_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("ultrafast_rag.models.registry.tuned_tokens", lambda folder, name: 777)
    settings = {"image_model": None, "speech_model": None, "quiet": True}
    with UltraFastRAG(config=Config(**settings)) as rag:
        assert rag._models._text_config().batch_tokens == 777
    with UltraFastRAG(config=Config(batch_tokens=99, **settings)) as rag:
        assert rag._models._text_config().batch_tokens == 99
