"""What the pipeline puts together for a device: sounds for the transcriber, chunks for the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ultrafast_rag.config import Config
from ultrafast_rag.ingest.pipeline import PARTS_AHEAD, SOONER, IngestStats, Pipeline, Ports, _End, _Open
from ultrafast_rag.ingest.sources import Source
from ultrafast_rag.models.device import GpuFacts, plan_device
from ultrafast_rag.monitor import StageClock
from ultrafast_rag.types import Element, Part, Segment

SOURCE = Source(Path("talk.mp3"), "talk.mp3", 1, 1, "audio/mpeg")


class Listener:
    """Says what it was given, and how many at once."""

    fingerprint = "listener"

    def __init__(self, windows):
        self.windows, self.calls = windows, []

    def transcribe_many(self, sounds, *, language=None):
        self.calls.append(len(sounds))
        return [[Segment(1.0, 2.0, sound.decode(), "en")] for sound in sounds]


def pipeline(listener, group=(10, 2)):
    ports = Ports(extract=None, chunker=None, text=None, picture=None, speech=lambda: listener, cache=None, group=lambda: group)
    return Pipeline(Config(), None, ports, clock=StageClock(), until=lambda: False)


def part(number, *sounds):
    elements = [Element("sound", "", start_s=10.0 * number + n, data=s.encode()) for n, s in enumerate(sounds)]
    return Part(number, (Element("text", f"page {number}"), *elements))


def test_sounds_of_several_parts_are_heard_together_and_everything_stays_in_its_order():
    document = _Open(SOURCE, 1, None, "")
    parts = [(document, part(n, *sounds)) for n, sounds in enumerate(["", "a", "", "bc", "d", "e"])]
    items = [*parts[:4], _End(document), None, parts[4], None, parts[5], _End(document)]
    for windows, calls in ((3, [3, 1, 1]), (1, [1, 2, 1, 1])):
        listener = Listener(windows)
        found = list(pipeline(listener)._heard(iter(items)))
        assert listener.calls == calls
        assert [None if i is None else "end" if isinstance(i, _End) else i[1].number for i in found] == [
            0, 1, 2, 3, "end", None, 4, None, 5, "end"
        ]  # fmt: skip
        spoken = {i[1].number: [(e.kind, e.text, e.start_s) for e in i[1].elements] for i in found if isinstance(i, tuple)}
        assert spoken[3] == [("text", "page 3", None), ("speech", "b", 31.0), ("speech", "c", 32.0)]
        assert spoken[2] == [("text", "page 2", None)]


def test_pages_do_not_wait_for_a_second_recording():
    document, given = _Open(SOURCE, 1, None, ""), []

    def endless():
        for n in range(10 * PARTS_AHEAD):
            given.append(n)
            yield document, part(n, *("a" if n == 0 else ""))

    first = next(pipeline(Listener(8))._heard(endless()))
    assert first[1].number == 0
    assert len(given) <= PARTS_AHEAD, "the whole folder was held in memory"


def test_without_a_transcriber_the_report_says_so_and_the_rest_is_read():
    document = _Open(SOURCE, 1, None, "")
    run = pipeline(None)
    (_, read), _ = run._heard(iter([(document, part(1, "a")), _End(document)]))
    assert [element.kind for element in read.elements] == ["text"]
    assert list(run.stats.notes) == ["talk.mp3: speech was not transcribed, no speech model is here"]


def test_groups_grow_with_the_device(monkeypatch):
    assert plan_device(Config(device="cpu")).group == (16_384, 32)
    gpus = tuple(GpuFacts(n, "Tesla T4", (7, 5), 15 << 30, 16 << 30, bf16=False, supported=True) for n in range(2))
    monkeypatch.setattr("ultrafast_rag.models.device.gpu_may_be_there", lambda device: True)
    monkeypatch.setattr("ultrafast_rag.models.device.gpu_facts", lambda: gpus)
    assert plan_device(Config(device="cuda:0")).group == (65_536, 256)
    assert plan_device(Config()).group == (131_072, 512)


def test_a_group_ends_at_the_devices_count_of_pictures(monkeypatch):
    document, run = _Open(SOURCE, 1, None, ""), pipeline(None, group=(10, 2))
    chunk = type("C", (), {"token_ids": [1, 2], "data": b"picture"})
    monkeypatch.setattr(run, "_chunk", lambda document, part: [chunk])
    monkeypatch.setattr(run, "_report", lambda *_: None)
    assert [len(group.parts) for group in run._grouped(iter([(document, part(n)) for n in range(5)]))] == [2, 2, 1]
    run = pipeline(None, group=(4, 99))
    monkeypatch.setattr(run, "_chunk", lambda document, part: [chunk])
    monkeypatch.setattr(run, "_report", lambda *_: None)
    assert [len(group.parts) for group in run._grouped(iter([(document, part(n)) for n in range(5)]))] == [2, 2, 1]
    assert np.sum([len(group.parts) for group in run._grouped(iter([]))]) == 0


def test_a_long_run_that_mostly_encoded_says_what_need_not_be_waited_for():
    def notes(encode_s, seconds):
        return IngestStats(notes={"a.pdf: page 2 is blank": None}).report({"extract": 9.0, "encode": encode_s}, seconds).notes

    assert notes(30.0, 40.0) == ("a.pdf: page 2 is blank", SOONER)
    assert notes(30.0, 70.0) == notes(8.0, 10.0) == ("a.pdf: page 2 is blank",)
