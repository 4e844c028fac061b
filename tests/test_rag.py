"""The whole text path, as a user drives it: real files, the packaged encoder, a folder on disk."""

from __future__ import annotations

import asyncio
import html.parser
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ultrafast_rag import Config, UltraFastRAG
from ultrafast_rag.errors import ConfigError, IndexCorruptError, IndexLockedError, IndexStateError, UltraFastRAGError
from ultrafast_rag.index.store import Store
from ultrafast_rag.types import Chunk, PartCommit

TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}

TIDES = """# Tides

## Spring tides

Spring tides come twice a month, when sun and moon pull in line. At Kellow Point the range is then 6.4 metres.

## Neap tides

Neap tides come a week later. The range falls to 2.1 metres and the mud flats stay covered.
"""
LAMP = """<html><head><title>The lamp</title></head><body><h1>Keeping the lamp</h1>
<p>The lamp burns colza oil since 1871. Its keeper was Marta Oduya, who trimmed the wick every four hours.</p>
<script>alert("never shown")</script></body></html>"""
CODE = '''def tide_height(hours_after_high):
    """Height of the tide by the rule of twelfths, in metres."""
    return [6.4, 5.9, 4.8, 3.2, 1.6, 0.5, 0.0][hours_after_high]
'''


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "tides.md").write_text(TIDES)
    (folder / "lamp.html").write_text(LAMP)
    (folder / "tide.py").write_text(CODE)
    return folder


@pytest.fixture
def rag(tmp_path):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        yield rag


def test_questions_are_answered_from_the_right_document(rag, sources):
    report = rag.ingest(sources)
    assert (report.documents, report.failed, report.complete) == (3, (), True)
    answer = rag.query("Who was the keeper of the lamp?")
    assert answer.supported
    assert "Marta Oduya" in answer.text
    assert answer["sources"][0].startswith("lamp.html")
    assert "6.4 metres" in rag.query("What is the tidal range at Kellow Point at springs?").text
    assert rag.search("rule of twelfths function", k=1)[0].source.endswith("tide.py")


def test_searches_share_one_thread(rag, sources):
    rag.ingest(sources)
    before, used = set(threading.enumerate()), set()
    for question in ("high tide", "the lamp", "a boat"):
        assert rag.search(question)
        used |= {thread for thread in threading.enumerate() if thread.name.startswith("ufr-question")} - before
    assert len(used) == 1
    rag.close()
    assert not used.pop().is_alive()


def test_an_unsupported_question_is_not_answered(rag, sources):
    rag.ingest(sources)
    answer = rag.query("Which enzyme unwinds DNA during replication?")
    assert not answer.supported
    assert answer.text.startswith("Not found in these documents")
    assert answer.citations == ()


def test_unchanged_sources_are_skipped_without_a_model(tmp_path, sources):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        rag.ingest(sources)
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        report = rag.ingest(sources)
        assert (report.documents, report.unchanged, report.embedded) == (0, 3, 0)
        assert rag.stats()["models"] == {}


def test_touched_but_equal_content_is_unchanged(rag, sources):
    rag.ingest(sources)
    os.utime(sources / "tides.md", ns=(1, 1))
    report = rag.ingest(sources)
    assert (report.documents, report.unchanged) == (0, 3)


def test_changed_content_replaces_the_old(rag, sources):
    rag.ingest(sources)
    (sources / "lamp.html").write_text(LAMP.replace("Marta Oduya", "Ivo Brandt"))
    report = rag.ingest(sources)
    assert (report.documents, report.unchanged) == (1, 2)
    assert "Ivo Brandt" in rag.query("Who was the keeper of the lamp?").text
    assert not any("Oduya" in hit.text for hit in rag.search("Marta Oduya", k=10))


def test_deleted_documents_are_gone(rag, sources):
    rag.ingest(sources)
    assert rag.delete(sources / "lamp.html")
    assert not rag.delete(sources / "lamp.html")
    assert {Path(d.source).name for d in rag.documents()} == {"tides.md", "tide.py"}
    assert not any(hit.source.endswith("lamp.html") for hit in rag.search("lamp keeper", k=10))


def test_add_texts_gives_the_ids_back_and_replaces_by_id(rag):
    rag.add_texts(["The cat sleeps.", "Ships need harbours."], ids=["a", "b"], metadata=[{"kind": "pet"}, {"kind": "sea"}])
    assert rag.search("a sleeping cat", k=1)[0].document_id == "a"
    assert [hit.document_id for hit in rag.search("cat", filters={"kind": "sea"})] == ["b"]
    report = rag.add_texts(["The dog barks.", "Ships need harbours."], ids=["a", "b"])
    assert report.documents == 2  # the metadata of b changed, the text of a
    assert {hit.text for hit in rag.search("cat", k=5)} == {"The dog barks.", "Ships need harbours."}
    assert rag.add_texts(["The dog barks."], ids=["a"]).unchanged == 1


def test_a_hierarchical_index_widens_a_hit_to_its_section(tmp_path):
    lines = [f"Sentence {n} of the spring section speaks of bell number {n}." for n in range(12)]
    (tmp_path / "bells.md").write_text("# Bells\n\n## Spring\n\n" + " ".join(lines) + "\n\n## Autumn\n\nNothing rings.")
    with UltraFastRAG(chunker="hierarchical", chunk_tokens=40, chunk_overlap=0, **TEXT_ONLY) as rag:
        rag.ingest(tmp_path / "bells.md")
        (hit,) = rag.search("bell number 5", k=1, alpha=0, neighbours=True)
        whole = " ".join((hit.neighbours[0], hit.text, hit.neighbours[1]))
        assert len(hit.text) < len(" ".join(lines)) / 2
        assert all(line in whole.replace("\n", " ") for line in lines)
        assert "Nothing rings" not in whole


def test_an_ephemeral_index_leaves_nothing(sources):
    with UltraFastRAG(**TEXT_ONLY) as rag:
        rag.ingest(sources)
        folder = rag._store.folder
        assert folder.exists()
    assert not folder.exists()


def test_aquery_works_inside_a_running_loop(rag, sources):
    rag.ingest(sources)

    async def both():
        return await asyncio.gather(rag.aquery("Who was the keeper of the lamp?"), rag.aquery("When do neap tides come?"))

    lamp, neap = asyncio.run(both())
    assert "Oduya" in lamp.text
    assert "week later" in neap.text


def test_a_repeated_question_comes_from_the_cache_until_the_index_changes(rag, sources):
    rag.ingest(sources)
    assert not rag.query("Who was the keeper of the lamp?").cached
    assert rag.query("Who was the keeper of the lamp?").cached
    rag.add_texts(["Something new."])
    assert not rag.query("Who was the keeper of the lamp?").cached


def test_a_closed_index_still_says_what_it_was(tmp_path):
    rag = UltraFastRAG(tmp_path / "ix", image_model=None, speech_model=None, quiet=True)
    rag.close()
    assert repr(rag) == f"UltraFastRAG({str(tmp_path / 'ix')!r}: closed)"


def test_a_question_of_many_words_is_asked_by_its_first(rag):
    rag.add_texts(["Ships need harbours.", "The lamp burns colza oil."])
    assert "colza" in rag.query("What does the lamp burn? " + "please " * 5000).text


def test_models_are_kept_in_a_folder_that_can_be_one(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning), UltraFastRAG(cache_dir=tmp_path / "file", image_model=None, speech_model=None) as rag:
        assert rag.add_texts(["Ships need harbours."]).embedded == 1


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda rag: rag.search("x", k=0), "k is how many hits"),
        (lambda rag: rag.search("  "), "the question is empty"),
        (lambda rag: rag.query(""), "the question is empty"),
        (lambda rag: rag.search("x", alpha=2), "alpha must lie between 0"),
        (lambda rag: rag.search("x", modality="smell"), "unknown modality smell"),
        (lambda rag: rag.ingest(), "nothing to ingest"),
        (lambda rag: rag.add_texts(["a"], ids=["1", "2"]), "differ in length"),
        (lambda rag: rag.add_texts(["a", "b"], ids=["1", "1"]), "unique"),
        (lambda rag: rag.search("x", rerank=True), "rerank_model"),
        (lambda rag: rag.feedback("x", 1, 7), "a vote is"),
        (lambda rag: rag.feedback("x", 10_000, 1), "no passage 10000, so the vote was not stored"),
        (lambda rag: rag.feedback("x", "1", 1), "no passage '1'"),
        (lambda rag: rag.search("x", modality=3), "modality is one or several of"),
        (lambda rag: rag.ingest(["a.pdf", "b.pdf"]), r"rag.ingest\(\*files\)"),
        (lambda rag: rag.ingest(""), "a source is a file, a folder"),  # else the folder one is in
        (lambda rag: rag.ingest("a.pdf", time_budget_s="10"), "in seconds"),
        (lambda rag: rag.delete(None), "a source to delete is a path"),
        (lambda rag: rag.export(None), "an index archive is a path"),
        (lambda rag: rag.export(Path.cwd()), "is a folder; name the .tar"),
        (lambda rag: rag.page(3), "page takes a hit"),
        (lambda rag: UltraFastRAG(3), "an index's folder is a path"),
        (lambda rag: UltraFastRAG(use_quantization="no"), "use_quantization is True or False, not 'no'"),
        (lambda rag: UltraFastRAG(config={"k": 3}), "config takes a Config"),
    ],
)
def test_bad_requests_say_what_to_do_and_leave_the_index_usable(rag, ask, says):
    rag.add_texts(["Ships need harbours."])
    with pytest.raises(ConfigError, match=says):
        ask(rag)
    assert rag.search("harbour", k=1)[0].text == "Ships need harbours."


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda rag: rag.add_texts(["fine", "a\0b"]), r"texts\[1\] holds a NUL"),
        (lambda rag: rag.add_texts(["fine", "half \ud800"]), r"texts\[1\] holds half of a surrogate"),
        (lambda rag: rag.add_texts(["fine", 7]), r"texts\[1\] must be text, not int"),
        (lambda rag: rag.add_texts("one text"), "pass a list"),
        (lambda rag: rag.add_texts(["a", "b"], ids=["x", "\udfff"]), r"ids\[1\] holds half"),
        (lambda rag: rag.add_texts(["a", "b"], ids=["x", 7]), r"ids\[1\] must be text"),
        (lambda rag: rag.add_texts(["a", "b"], metadata=[{}, {"n": float("nan")}]), r"metadata\[1\]\['n'\] is nan"),
        (lambda rag: rag.add_texts(["a"], metadata=[{"n": [1, {"m": float("inf")}]}]), r"metadata\[0\]\['n'\].*is inf"),
        (lambda rag: rag.add_texts(["a"], metadata=[{"n": 2**64}]), "more than 64 bits"),
        (lambda rag: rag.add_texts(["a"], metadata=[{"n": object()}]), "is of type object"),
        (lambda rag: rag.add_texts(["a"], metadata=["n"]), r"metadata\[0\] must be a mapping"),
        (lambda rag: rag.search("a\0b"), "the question holds a NUL"),
        (lambda rag: rag.query("half \ud800"), "the question holds half"),
        (lambda rag: rag.search(7), "a question is text"),
        (lambda rag: rag.query(["x"]), "a question is text"),
        (lambda rag: rag.search("x", k=2.5), "k is how many hits"),
        (lambda rag: rag.search("x", alpha="bar"), "alpha must lie"),
        (lambda rag: rag.search("x", filters={"n": float("nan")}), "filter 'n' is nan"),
        (lambda rag: rag.search("x", filters={"n": 2**70}), "filter 'n' .*64 bits"),
        (lambda rag: rag.search("x", filters={"page": -(2**70)}), "filter 'page' .*64 bits"),
        (lambda rag: rag.search("x", filters={"title": "\ud800"}), "filter 'title' holds half"),
        (lambda rag: rag.search("x", filters=["title"]), "filters are a mapping"),
        (lambda rag: rag.search(Path("nowhere/cat.png")), "the picture .* cannot be read"),
        (lambda rag: rag.delete("a\0b"), "the source .* NUL"),
        (lambda rag: rag.feedback("half \ud800", 1, 1), "the question holds half"),
    ],
)
def test_values_that_cannot_be_stored_are_named_and_nothing_is_lost(rag, ask, says):
    rag.add_texts(["Ships need harbours."], metadata=[{"n": 2**63 - 1}])
    with pytest.raises(ConfigError, match=says):
        ask(rag)
    assert rag.stats()["chunks"] == 1
    assert rag.search("harbour", k=1, filters={"n": 2**63 - 1})[0].text == "Ships need harbours."


def test_the_callers_hits_are_not_the_cached_ones(rag):
    rag.add_texts(["Ships need harbours.", "Harbours need piers.", "Piers need piles."])
    first = rag.search("harbour piers", k=3)
    texts = [hit.text for hit in first]
    first.clear()
    again = rag.search("harbour piers", k=3)
    assert [hit.text for hit in again] == texts
    again.reverse()
    assert [hit.text for hit in rag.search("harbour piers", k=3)] == texts
    answer = rag.query("What do ships need?")
    shown = len(answer.hits)
    answer.hits.clear()
    assert len(rag.query("What do ships need?").hits) == shown
    rag.query("What do ships need?").hits.clear()
    assert len(rag.query("What do ships need?").hits) == shown


class Unhashable(list):
    """A callable that no dictionary takes as a key."""

    def __call__(self, question, hits):
        self.append(question)
        return "Harbours [1]."


def test_any_function_may_write_answers_and_each_has_its_own_cache(rag):
    rag.add_texts(["Ships need harbours."])
    one, other = Unhashable(), Unhashable()
    assert rag.query("What do ships need?", generator=one).text == "Harbours [1]."
    assert rag.query("What do ships need?", generator=one).cached
    assert not rag.query("What do ships need?", generator=other).cached
    assert (len(one), len(other)) == (1, 1)


def test_an_answer_by_a_stand_in_is_not_cached_whatever_its_notes_say(rag):
    rag.add_texts(["Ships need harbours."])
    working = []

    def writer(question, hits):
        if not working:
            raise LookupError("backend gone")
        return "Harbours [1]."

    assert rag.query("What do ships need?", generator=writer).fallback
    working.append(True)
    answer = rag.query("What do ships need?", generator=writer)
    assert (answer.text, answer.cached, answer.fallback) == ("Harbours [1].", False, False)
    assert rag.query("What do ships need?", generator=writer).cached


def test_an_answer_streams_piece_by_piece_and_is_then_remembered(rag, sources):
    rag.ingest(sources)

    def writes(question, hits):
        yield "It is "
        yield "6.4 metres [1]."

    asked = {"k": 3, "alpha": 0.4, "filters": {"source": "tides.md"}, "generator": writes}
    *pieces, answer = rag.stream("How large is the range?", **asked)
    assert "".join(pieces) == answer.text == "It is 6.4 metres [1]."
    assert {hit.source.rsplit("/", 1)[-1] for hit in answer.hits} == {"tides.md"}
    assert {"search", "answer"} <= set(answer.timings_s)
    assert [piece.cached for piece in rag.stream("How large is the range?", **asked)] == [True]
    assert rag.query("How large is the range?", **asked).cached

    async def collect():
        return [piece async for piece in rag.astream("Who kept the lamp?", alpha=0.5)]

    assert asyncio.run(collect())[-1].text == rag.query("Who kept the lamp?", alpha=0.5).text


def test_leaving_a_stream_early_ends_the_writer(rag, sources):
    rag.ingest(sources)
    ended = threading.Event()

    async def endless(question, hits):
        try:
            while True:
                yield "Word. "
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    pieces = rag.stream("What is there?", generator=endless)
    assert next(pieces).startswith("Word. ")
    pieces.close()
    assert ended.wait(10)


def test_a_page_is_shown_whole_with_its_passage_marked(rag, tmp_path):
    import pymupdf

    with pymupdf.open() as book:
        for words in ("The first page is about cheese.", "The second page says that the mole is 300 metres long."):
            book.new_page().insert_text((72, 400), words)
        book.save(tmp_path / "book.pdf")
    rag.ingest(tmp_path / "book.pdf")
    hit = rag.search("How long is the mole?")[0]
    yellow = {}
    for number in (None, 1, 9):
        leaf = rag.page(hit, number)
        picture = pymupdf.Pixmap(leaf.evidence.data)
        assert picture.height > picture.width > 900  # a whole A4 page
        colours = picture.color_count(colors=True)
        counted = sum(n for (r, g, b), n in ((tuple(c), n) for c, n in colours.items()) if r > 230 and g > 220 and b < 200)
        yellow[leaf.number] = yellow.get(leaf.number, 0) + counted
        assert leaf.of == 2
    assert yellow[2] > 1000
    assert yellow[1] == 0
    rag.add_texts(["Texts have no pages, only words."], ids=["x"])
    assert rag.page(rag.search("words without pages", filters={"document_id": "x"})[0]) == (None, 0, 0)


def test_thumbs_are_kept_in_the_index(rag, sources):
    rag.ingest(sources)
    hit = rag.search("How large is the range at spring tide?")[0]
    rag.feedback("How large is the range?", hit.chunk_id, 1)
    rag.feedback("Who\nkept it?", None, -1)
    votes = rag._store.feedback()
    assert [(row["question"], row["vote"]) for row in votes] == [("How large is the range?", 1), ("Who\nkept it?", -1)]
    assert [row["chunk_id"] for row in votes] == [hit.chunk_id, None]


def test_progress_never_runs_past_its_total_and_time_left_does_not_climb(rag, tmp_path):
    import pymupdf

    folder = tmp_path / "many"
    folder.mkdir()
    for name, pages in (("a", 12), ("b", 2)):  # the large file has few pages: a byte says little
        with pymupdf.open() as book:
            for number in range(pages):
                book.new_page().insert_text((72, 72), f"Page {number} of {name}.")
            book.save(folder / f"{name}.pdf")
    for number in range(20):
        (folder / f"{number}.md").write_text(f"Note {number}.")
    states = []
    rag.ingest(folder, on_progress=states.append)
    told = [state for state in states if state.parts_total is not None]
    assert told
    assert all(state.parts <= state.parts_total for state in told)
    left = [state.eta_s for state in told]
    assert left == sorted(left, reverse=True)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="alpha"):
        UltraFastRAG(alpha=3)
    with pytest.raises(ConfigError, match="unknown setting chunk_size"):
        UltraFastRAG(chunk_size=3)


def test_bad_files_end_in_the_report_and_the_rest_is_read(rag, sources, tmp_path):
    (sources / "empty.txt").write_bytes(b"")
    (sources / "noise.bin").write_bytes(bytes(range(256)) * 40)
    (sources / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing else")
    (sources / "really_html.pdf").write_text("<html><body><p>The anchor weighs 40 tons.</p></body></html>")
    (tmp_path / "void").mkdir()
    report = rag.ingest(sources, tmp_path / "missing.txt", tmp_path / "void")
    failed = {Path(source).name: why for source, why in report.failed}
    assert set(failed) >= {"empty.txt", "noise.bin", "broken.pdf", "missing.txt", "void"}
    assert "empty" in failed["empty.txt"]
    assert all(len(why) > 10 for why in failed.values())
    assert "Oduya" in rag.query("Who was the keeper of the lamp?").text
    assert {Path(d.source).name for d in rag.documents()} >= {"tides.md", "lamp.html", "tide.py"}
    assert not {"empty.txt", "noise.bin", "broken.pdf"} & {Path(d.source).name for d in rag.documents()}


def test_another_encoder_is_refused_and_the_index_stays_usable(tmp_path, sources):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        rag.ingest(sources)
    other = tmp_path / "other-model"
    other.mkdir()
    (other / "config.json").write_text('{"hidden_size": 384, "max_position_embeddings": 256}')
    (other / "model.safetensors").write_bytes(b"other weights")
    with (
        UltraFastRAG(tmp_path / "index", text_model=str(other), **TEXT_ONLY) as rag,
        pytest.raises(IndexStateError, match="cannot be compared"),
    ):
        rag.search("lamp", k=1)
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        assert rag.search("lamp", k=1)


def test_an_index_remembers_its_settings(tmp_path, sources):
    with UltraFastRAG(tmp_path / "index", chunk_tokens=64, **TEXT_ONLY) as rag:
        rag.ingest(sources)
    with UltraFastRAG(tmp_path / "index", quiet=True) as rag:
        assert rag.config.chunk_tokens == 64


def test_a_stop_in_the_middle_keeps_order_and_the_next_ingest_goes_on(rag, tmp_path):
    for n in range(30):
        (tmp_path / f"log{n:02d}.txt").write_text(f"Log {n}. The tide turns and the bell buoy rings.")
    stop = threading.Event()
    first = rag.ingest(*tmp_path.glob("log*.txt"), stop=stop, on_progress=lambda state: state.parts >= 3 and stop.set())
    assert not first.complete
    assert "run the same ingest again" in str(first)
    second = rag.ingest(*tmp_path.glob("log*.txt"))
    assert second.complete
    assert len(rag.documents()) == 30
    assert all(d.complete for d in rag.documents())
    assert not rag.ingest(tmp_path / "more.txt", time_budget_s=0).documents


def test_a_second_writer_gets_a_clear_error_and_readers_go_on(rag, sources, tmp_path):
    rag.ingest(sources)
    code = (
        "import sys, ultrafast_rag\n"
        f"rag = ultrafast_rag.UltraFastRAG({str(tmp_path / 'index')!r})\n"
        "print(rag.search('lamp', k=1)[0].source)\n"
        "try:\n    rag.add_texts(['more'])\nexcept ultrafast_rag.errors.IndexLockedError as error:\n    print('locked:', error)\n"
    )
    code = code.replace("import sys, ultrafast_rag", "import ultrafast_rag, ultrafast_rag.errors")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("lamp.html"), done.stderr
    assert lines[1].startswith("locked:"), done.stderr
    assert issubclass(IndexLockedError, IndexStateError)


def test_a_capsule_restores_the_whole_index(rag, sources, tmp_path):
    rag.ingest(sources)
    capsule = rag.export(tmp_path / "capsule.tar")
    with UltraFastRAG.restore(capsule, tmp_path / "copy", **TEXT_ONLY) as copy:
        assert [hit.text for hit in copy.search("lamp keeper")] == [hit.text for hit in rag.search("lamp keeper")]


def test_a_damaged_capsule_is_refused_and_leaves_nothing(rag, sources, tmp_path):
    rag.ingest(sources)
    capsule = rag.export(tmp_path / "capsule.tar")
    data = bytearray(capsule.read_bytes())
    data[len(data) // 2] ^= 0xFF
    capsule.write_bytes(data)
    with pytest.raises(IndexCorruptError):
        UltraFastRAG.restore(capsule, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_results_draw_as_html_without_scripts(rag, sources):
    (sources / "evil.md").write_text("# <script>alert(1)</script>\n\nThe <img src=x onerror=alert(2)> buoy is red.")
    report = rag.ingest(sources)
    for shown in (report, rag.search("buoy"), rag.query("What colour is the buoy?")):
        tags = _Tags()
        tags.feed(shown._repr_html_())
        assert not {"script", "iframe", "object"} & {tag for tag, _ in tags.seen}
        assert not any(name.startswith("on") for _, attributes in tags.seen for name in attributes)
        assert str(shown)


def test_stats_and_doctor_tell_what_is_there(rag, sources):
    rag.ingest(sources)
    rag.search("lamp")
    stats = rag.stats()
    assert stats["documents"] == 3
    assert stats["latency"]["search"]["count"] == 1
    checks = {row["check"]: row["value"] for row in rag.doctor()}
    assert checks["checksums"] == "good"
    assert "all-MiniLM-L6-v2" in checks["vectors text"]


CHILD = """
import sys
from ultrafast_rag import UltraFastRAG
rag = UltraFastRAG(sys.argv[1], image_model=None, speech_model=None, quiet=True)
print("open", flush=True)
rag.ingest(sys.argv[2], on_progress=lambda state: print(state.parts, flush=True))
print("done", flush=True)
"""


@pytest.mark.fault
@pytest.mark.parametrize("parts_before_kill", [1, 4, 9])
def test_kill_9_loses_nothing_committed_and_the_next_ingest_completes(tmp_path, parts_before_kill):
    folder = tmp_path / "sources"
    folder.mkdir()
    for n in range(12):
        words = " ".join(f"Buoy {n}-{line} rings in the fog and marks shoal number {n * 100 + line}." for line in range(150))
        (folder / f"log{n:02d}.txt").write_text(words)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "index"), str(folder)], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    for line in child.stdout:
        if line.strip().isdigit() and int(line) >= parts_before_kill:
            break
    time.sleep(0.02 * parts_before_kill)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        before = {d.source: d.chunks for d in rag.documents() if d.complete}
        assert rag._store.verify() == []
        report = rag.ingest(folder)
        assert report.complete
        assert report.unchanged == len(before)
        documents = rag.documents()
        assert len(documents) == 12
        assert all(d.complete for d in documents)
        assert {d.source: d.chunks for d in documents if d.source in before} == before
        hit = rag.search("Buoy 11-149 shoal number 1249", k=1)[0]
        assert "1249" in hit.text
        # nothing twice: every chunk text of a document is distinct
        texts = [hit.text for hit in rag.search("Buoy 3-10 rings in the fog", k=50, filters={"source": "log03.txt"})]
        assert len(texts) == len(set(texts))


@pytest.mark.fault
def test_a_poisoned_cache_row_runs_nothing(tmp_path, sources, monkeypatch):
    import pickle
    import sqlite3

    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    cache = tmp_path / "cache"
    settings = {**TEXT_ONLY, "cache_dir": cache}
    warm = Config(**TEXT_ONLY).cache_dir
    if (warm / "engines").exists():
        cache.mkdir()
        (cache / "engines").symlink_to(warm / "engines")
    with UltraFastRAG(tmp_path / "first", **settings) as rag:
        rag.ingest(sources)
    with sqlite3.connect(cache / "embeddings" / "cache.db") as database:
        changed = database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Attack()),)).rowcount
    assert changed > 0
    with UltraFastRAG(tmp_path / "second", **settings) as rag, pytest.warns(RuntimeWarning, match="embedding cache"):
        report = rag.ingest(sources)
    assert report.embedded > 0
    assert report.complete
    assert not canary.exists()


def test_the_command_line_ingests_and_answers(tmp_path, sources):
    def run(*arguments):
        command = [sys.executable, "-m", "ultrafast_rag", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)

    texts = ["--set", "image_model=null", "--set", "speech_model=null", "--index", "ix"]
    assert "3 documents" in run("ingest", str(sources), *texts).stdout
    answer = json.loads(run("query", "Who was the keeper of the lamp?", "--json", *texts).stdout)
    assert "Marta Oduya" in answer["text"]
    wrong = run("search", "lamp", "--index", "nowhere")
    assert wrong.returncode == 1
    assert "there is no index in nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_every_error_of_ours_shares_one_base():
    assert issubclass(ConfigError, UltraFastRAGError)


def test_what_objects_show_is_a_table_and_no_hash(rag, sources):
    rag.ingest(sources)
    rag.add_texts(["The ferry to the island leaves at seven on Fridays and returns when the tide allows it."])
    documents, stats = rag.documents(), rag.stats()
    assert "lamp.html" in str(documents)
    assert "passages" in repr(documents)
    assert "Document(" not in repr(documents)
    assert len(documents) == 4
    assert stats["documents"] == 4
    assert "{" not in repr(stats)
    for shown in (documents, stats):
        assert "<table" in shown._repr_html_()
    hit = rag.search("When does the ferry leave?")[0]
    assert hit.where == "“The ferry to the island leaves at seven on Frid…”"
    assert hit.document_id not in str(hit)


def test_documents_of_a_kind_are_counted_with_those_without_a_passage(tmp_path):
    with Store.open(tmp_path / "index") as store:
        assert store.of_kind("audio") == (0, 0)
        for name, kind, texts in (("a.mp3", "audio/mpeg", ["spoken"]), ("b.mp3", "audio/mpeg", []), ("c.png", "image/png", [])):
            key = store.begin(name, content_hash="v1", media_type=kind).document_key
            store.commit([PartCommit(key, 0, [Chunk(text) for text in texts], final=True)])
        assert store.of_kind("audio") == (2, 1)
        assert store.of_kind("image") == (1, 1)
        store.delete("a.mp3")
        assert store.of_kind("audio") == (1, 1)
