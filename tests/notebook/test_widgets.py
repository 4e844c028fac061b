"""Panels driven through their traits, as a front end would: ipywidgets 7.7 and 8 both."""

from __future__ import annotations

import threading
import time

import pytest

from ultrafast_rag.answer.chat import Chat, as_hits
from ultrafast_rag.answer.memory import MemoryConsolidator
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, IndexStateError, StorageError
from ultrafast_rag.notebook import ingest_panel, missing, watch, widgets
from ultrafast_rag.types import Answer, Citation, Document, Evidence, Hit, Hits, IngestReport, Leaf, ProgressState

ipywidgets = pytest.importorskip("ipywidgets")
V7 = ipywidgets.__version__.startswith("7")


class SmallRag:
    """The surface that panels use, over a list of sentences: words decide, nothing is canned."""

    def __init__(self, texts):
        self.config = Config()
        self.texts = texts
        self.votes = []
        self.asked = []
        self.ingested = []
        self.pages = 4
        self.hold = None
        self.error = None
        self.memory = MemoryConsolidator()

    def documents(self):
        return [Document(source, source) for source in self.texts]

    def search(self, query, *, k=10, alpha=None, modality=None, filters=None):
        self.asked.append({"query": query, "k": k, "alpha": alpha, "modality": modality, "filters": filters})
        if self.error:
            raise self.error
        words = set(query.lower().split())
        scored = [
            Hit(n, source, source, "text", text, float(len(words & set(text.lower().split()))))
            for n, (source, text) in enumerate(self.texts.items(), 1)
            if filters is None or source in filters.get("source", [source])
        ]
        return Hits(sorted(scored, key=lambda h: -h.score)[:k], query=query)

    def query(self, question, *, k=5, generator=None, **options):
        hits = self.search(question, k=k, **options)
        self.asked[-1]["generator"] = generator
        return Answer(question, f"{hits[0].text} [1]", hits, (Citation(1, hits[0], hits[0].text),))

    def stream(self, question, *, generator=None, **options):
        if callable(generator):
            yield from generator(question, self.search(question, **options))
        yield self.query(question, generator=None if callable(generator) else generator, **options)

    def chat(self, session="default"):
        return Chat(self.memory, self.beside, self.stream, session=session)

    def beside(self, question, memories, **options):
        found = self.query(question, **options)
        hits = Hits([*as_hits(memories, found.hits), *found.hits])
        return Answer(question, f"{hits[0].text} [1]", hits, (Citation(1, hits[0], hits[0].text),))

    def sample_questions(self, n=4):
        return ["where is the lighthouse"][:n]

    def page(self, hit, number=None):
        return Leaf(Evidence("image/png", b"\x89PNG"), number or 2, 3)

    def feedback(self, question, chunk_id, vote):
        self.votes.append((question, chunk_id, vote))

    def stats(self):
        return {"latency": {"search": {"count": 3, "p50_ms": 1.5}}}

    def ingest(self, *sources, on_progress=None, stop=None, time_budget_s=None):
        if self.error:
            raise self.error
        for page in range(len(self.ingested), self.pages):
            if self.hold is not None:
                self.hold.wait(10)
            if stop.is_set():
                return IngestReport(pages=len(self.ingested), complete=False, seconds=1.0)
            self.ingested.append((sources, page))
            on_progress(ProgressState("a.pdf", 0, 1, page + 1, self.pages, page, 1.0, 2.0, 50.0, done=page + 1 == self.pages))
        return IngestReport(documents=1, pages=self.pages, seconds=1.0)


@pytest.fixture
def rag():
    return SmallRag({"docs/cape.md": "The lighthouse stands on the cape", "docs/boat.md": "The boat is blue & <b>small</b>"})


def ask(panel):
    panel.ask_button.click()
    assert panel.wait(10)


def press_enter(text):
    text._handle_string_msg(text, {"event": "submit"}, [])  # what the front end sends, in 7 and in 8


def test_enter_asks_and_shows_answer_with_evidence(rag):
    panel = widgets.SearchWidget(rag)
    panel.question.value = "where is the lighthouse"
    press_enter(panel.question)
    assert panel.wait(10)
    assert "The lighthouse stands on the cape" in panel.result.value
    assert "cape.md" in panel.result.value
    assert panel.status.value == ""
    assert panel.shown.actions.layout.display == "flex"


def test_filters_reach_the_query_as_they_are_set(rag):
    panel = widgets.SearchWidget(rag)
    at = panel.filters
    panel.question.value, at.alpha.value, at.k.value, at.pages.value = "boat", 0.2, 1, "3 - 9"
    at.modality.value, at.sources.value, at.generator.value = "text", ("docs/boat.md", "docs/cape.md"), "extractive"
    ask(panel)
    asked = rag.asked[-1]
    assert asked == {
        "query": "boat", "k": 1, "alpha": 0.2, "modality": "text",
        "filters": {"source": ["docs/boat.md", "docs/cape.md"], "page": [3, 9]},
        "generator": "extractive",
    }  # fmt: skip
    assert "&lt;b&gt;small&lt;/b&gt;" in panel.result.value
    panel.mode.value = "Passages"
    ask(panel)
    assert "1 hit for" in panel.result.value


def test_defaults_are_the_configs(rag):
    panel = widgets.SearchWidget(rag)
    assert panel.filters.alpha.value == rag.config.alpha
    panel.question.value = "boat"
    ask(panel)
    assert rag.asked[-1]["filters"] is None
    assert rag.asked[-1]["generator"] is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigError("k must be greater than 0, not <0>"), "k must be greater than 0, not &lt;0&gt;"),
        (ZeroDivisionError("division by zero"), "That did not work (ZeroDivisionError: division by zero)"),
    ],
)
def test_errors_appear_in_the_panel_and_it_stays_usable(rag, error, words):
    panel = widgets.SearchWidget(rag)
    panel.question.value, rag.error = "boat", error
    ask(panel)
    assert words in panel.status.value
    assert "error" in panel.status.value
    assert not panel.ask_button.disabled
    rag.error = None
    ask(panel)
    assert panel.status.value == ""
    assert "boat is blue" in panel.result.value


def test_empty_question_is_told(rag):
    panel = widgets.SearchWidget(rag)
    ask(panel)
    assert "Type a question first" in panel.status.value
    assert rag.asked == []


def test_history_shows_an_earlier_answer_without_asking_again(rag):
    panel = widgets.SearchWidget(rag)
    for question in ("where is the lighthouse", "which boat"):
        panel.question.value = question
        ask(panel)
    assert [label for label, _ in panel.history.options] == ["earlier questions", "2. which boat", "1. where is the lighthouse"]
    asked = len(rag.asked)
    panel.history.value = 1
    assert "stands on the cape" in panel.result.value.split("more passage")[0]
    assert len(rag.asked) == asked
    panel.shown.up.click()
    assert rag.votes == [("where is the lighthouse", None, 1)]


def test_history_stays_bounded_and_points_at_the_right_answers(rag):
    panel = widgets.SearchWidget(rag)
    for number in range(widgets._HISTORY + 5):
        panel.question.value = f"boat {number}"
        ask(panel)
    assert len(panel.history.options) == widgets._HISTORY + 1
    panel.history.value = 1
    assert "boat 5" in panel.result.value


def test_thumbs_vote_on_the_answer_or_the_chosen_passage(rag):
    panel = widgets.SearchWidget(rag)
    panel.shown.up.click()
    assert "Ask something first" in panel.status.value
    panel.question.value = "lighthouse"
    ask(panel)
    panel.shown.up.click()
    panel.shown.about.value = 2
    panel.shown.down.click()
    assert rag.votes == [("lighthouse", None, 1), ("lighthouse", 2, -1)]
    assert "stored" in panel.status.value


def test_new_documents_join_the_source_filter_and_a_choice_survives(rag):
    filters = widgets.SearchWidget(rag).filters
    filters.sources.value = ("docs/boat.md",)
    rag.texts["docs/new.md"] = "new"
    filters.refresh()
    assert ("new.md", "docs/new.md") in filters.sources.options
    assert filters.sources.value == ("docs/boat.md",)
    del rag.texts["docs/boat.md"]
    filters.refresh()
    assert filters.sources.value == ()


def test_a_changed_setting_asks_again_and_replaces_what_was_said(rag):
    panel = widgets.SearchWidget(rag)
    panel.filters.alpha.value = 0.1
    assert rag.asked == []  # nothing was asked yet
    panel.question.value = "boat"
    ask(panel)
    panel.filters.sources.value = ("docs/cape.md",)
    assert panel.wait(10)
    assert rag.asked[-1]["query"] == "boat"
    assert "lighthouse stands" in panel.result.value
    assert panel.thread_view.value == ""  # one turn, asked twice
    panel.filters.pages.value = "some"
    assert "pages are a number or a range" in panel.status.value


def test_an_answer_of_a_model_grows_stale_instead(rag):
    rag.query = lambda question, *, k=5, **options: Answer(question, "written", Hits(), generator="gemini:x")
    panel = widgets.SearchWidget(rag)
    panel.question.value = "boat"
    ask(panel)
    panel.filters.alpha.value = 0.1
    assert not panel.running
    assert "press Ask" in panel.status.value
    assert "ufr-stale" in panel.result._dom_classes
    ask(panel)
    assert "ufr-stale" not in panel.result._dom_classes


def test_stop_leaves_what_was_written(rag):
    go = threading.Event()

    def slow(question, hits):
        yield "first "
        go.wait(10)
        yield "second"

    panel = widgets.SearchWidget(rag, generator=slow)
    panel.question.value = "boat"
    panel.ask_button.click()
    deadline = time.monotonic() + 10
    while "first" not in panel.result.value and time.monotonic() < deadline:
        time.sleep(0.01)
    panel.start_again = panel.ask_button.disabled
    panel.stop_button.click()
    go.set()
    assert panel.wait(10)
    assert "first" in panel.result.value
    assert "second" not in panel.result.value
    assert "Stopped" in panel.status.value
    assert panel.start_again
    assert not panel.answers


def test_a_question_put_while_another_is_answered_comes_next(rag):
    go = threading.Event()

    def slow(question, hits):
        go.wait(10)
        yield f"about {question}"

    panel = widgets.SearchWidget(rag, generator=slow)
    panel.question.value = "boat"
    panel.start()
    panel.filters.alpha.value = 0.1  # would ask again, which the new question makes needless
    panel.question.value = "lighthouse"
    panel.start()
    go.set()
    assert panel.wait(10)
    assert [label for label, _ in panel.answers] == ["boat", "lighthouse"]
    assert not panel.ask_button.disabled


def test_follow_ups_lean_on_the_last_answer_until_a_new_conversation(rag):
    panel = widgets.SearchWidget(rag)
    panel.question.value = "where is the lighthouse"
    ask(panel)
    panel.question.value = "and who built it?"
    ask(panel)
    assert rag.asked[-1]["query"] == "and who built it? (lighthouse)"
    assert "Understood as: and who built it? (lighthouse)" in panel.notice.value
    assert "where is the lighthouse" in panel.thread_view.value
    panel.new_button.click()
    assert panel.thread_view.value == ""
    ask(panel)
    assert rag.asked[-1]["query"] == "and who built it?"


def test_it_remembers_beyond_its_own_life_and_forgets_on_request(rag):
    def said(panel, words):
        panel.question.value = words
        ask(panel)
        return panel.answers[-1][1]

    panel = widgets.SearchWidget(rag)
    assert said(panel, "Remember that our boat is called Petrel").text == "I will remember: our boat is called Petrel"
    assert said(panel, "where is the lighthouse").generator == "extractive"
    assert len(rag.asked) == 1  # what is to be remembered is not searched for
    later = widgets.SearchWidget(rag)  # as after a restart: nothing but the memory is the same
    assert "Petrel" in said(later, "what is our boat called").text
    assert any("“where is the lighthouse”" in note for note in said(later, "is the lighthouse on the cape").notes)
    assert said(later, "Forget what I said about our boat").text.startswith("Forgotten: ")
    assert not rag.memory.memories(kind="note")
    assert "Petrel" not in said(later, "what is our boat called").text


def test_asked_again_with_other_settings_one_turn_is_remembered(rag):
    panel = widgets.SearchWidget(rag)
    panel.question.value = "where is the lighthouse"
    ask(panel)
    panel.filters.k.value = 3
    assert panel.wait(10)
    assert len(rag.asked) == 2
    assert [turn.metadata["question"] for turn in rag.memory.memories(kind="turn")] == ["where is the lighthouse"]


def test_an_index_that_cannot_be_written_is_asked_all_the_same(rag, monkeypatch):
    def refused(session):
        raise StorageError("read-only")

    monkeypatch.setattr(rag, "chat", refused)
    panel = widgets.SearchWidget(rag)
    panel.question.value = "where is the lighthouse"
    ask(panel)
    assert "cape" in panel.answers[-1][1].text


def test_a_picture_is_searched_for_and_shown(rag):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (3000, 20), (255, 0, 0)).save(out, "PNG")
    panel = widgets.SearchWidget(rag)
    rag.search = lambda query, **options: Hits(query="(picture)") if query.startswith(b"\xff\xd8") else None
    put_upload(panel.picture, ("red.png", out.getvalue()))
    assert panel.wait(10)
    assert "the picture you asked with" in panel.result.value
    put_upload(panel.picture, ("red.png", b"<svg/>"))
    assert "not a picture that can be read" in panel.status.value
    panel.picture.dropped.value = "data:image/jpeg;base64,!!"
    assert "error" in panel.status.value


def test_citations_open_pages_and_answers_are_saved_as_one_page(rag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = widgets.SearchWidget(rag)
    panel.question.value = "where is the lighthouse"
    ask(panel)
    assert "ufr-open-1" in panel.result.value
    panel.shown.opened.children[0].click()
    pages = panel.shown.pages
    assert pages.box.layout.display == ""
    assert "page 2" in pages.view.value
    assert "of 3 pages" in pages.view.value
    pages.next.click()
    assert pages.next.disabled
    assert not pages.previous.disabled
    for _ in range(2):
        panel.shown.save_button.click()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "answer_where_is_the_lighthouse.html", "answer_where_is_the_lighthouse_2.html",
    ]  # fmt: skip
    assert "stands on the cape" in (tmp_path / "answer_where_is_the_lighthouse.html").read_text()
    assert "download=" in panel.shown.saved.value


def test_nothing_ingested_and_a_closed_index_are_said(rag):
    rag.texts = {}
    panel = widgets.SearchWidget(rag)
    assert "Nothing is in this index yet" in panel.notice.value
    rag.error = IndexStateError("the index in x is closed. Open it again.")
    panel.question.value = "boat"
    ask(panel)
    assert "is closed. Open it again" in panel.status.value


@pytest.mark.parametrize(
    ("question", "language"),
    [("Who founded it and when?", "english"), ("Wer hat die Station gegründet und wann?", "german"),
     ("誰が灯台を建てた", "other"), ("kittiwakes", "")],
)  # fmt: skip
def test_the_language_of_a_question(question, language):
    assert missing.language_of(question) == language


# ---- ingestion


def uploads(*files):
    if V7:
        return {name: {"metadata": {"name": name}, "content": content} for name, content in files}
    return tuple(
        {"name": n, "type": "", "size": len(c), "content": memoryview(c), "last_modified": __import__("datetime").datetime.now()}
        for n, c in files
    )


def put_upload(panel, *files):
    if V7:
        panel.upload.set_trait("value", uploads(*files))
    else:
        panel.upload.value = uploads(*files)


def test_uploads_are_kept_under_safe_names_and_ingested(rag, tmp_path):
    panel = widgets.IngestWidget(rag, uploads=tmp_path / "up")
    put_upload(panel, ("../../etc/pass wd.txt", b"one"), ("b.pdf", b"two"))
    panel.start_button.click()
    assert panel.wait(10)
    assert {p.name: p.read_bytes() for p in (tmp_path / "up").iterdir()} == {"pass wd.txt": b"one", "b.pdf": b"two"}
    assert set(rag.ingested[0][0]) == {str(tmp_path / "up" / "pass wd.txt"), str(tmp_path / "up" / "b.pdf")}
    assert "Done" in panel.status.value
    assert panel.bar.value == 1.0
    assert not panel.upload.value
    assert "pages" in panel.result.value


@pytest.mark.parametrize("value", ["7", "8"])
def test_uploaded_files_reads_both_versions(value):
    records = {"7": {"a.txt": {"metadata": {}, "content": b"x"}}, "8": ({"name": "a.txt", "content": memoryview(b"x")},)}
    assert list(ingest_panel.uploaded_files(records[value])) == [("a.txt", b"x")]


HARD_NAMES = ("../x", "a/b\\c", "..", "", "/", "x" * 400 + ".pdf", "a\x00b.txt", "$(rm).md", "résumé.pdf", "שלום.pdf")


@pytest.mark.parametrize("name", HARD_NAMES)
def test_safe_name_stays_inside_the_folder(tmp_path, name):
    path = tmp_path / ingest_panel._safe_name(name)
    path.write_bytes(b"")
    assert path.parent == tmp_path
    assert path.resolve().parent == tmp_path.resolve()
    assert path.is_file()


def test_pause_stops_in_good_order_and_go_on_finishes(rag, tmp_path):
    rag.hold = threading.Event()
    panel = widgets.IngestWidget(rag, uploads=tmp_path)
    panel.path.value = "papers/"
    press_enter(panel.path)
    assert panel.start_button.disabled
    assert not panel.pause_button.disabled
    panel.start_button.disabled = False
    panel.start_button.click()
    assert "at work already" in panel.status.value
    panel.pause_button.click()
    assert "Pausing" in panel.status.value
    rag.hold.set()
    assert panel.wait(10)
    assert "Paused" in panel.status.value
    assert not panel.resume_button.disabled
    panel.resume_button.click()
    assert panel.wait(10)
    assert [page for _, page in rag.ingested] == [0, 1, 2, 3]
    assert {sources for sources, _ in rag.ingested} == {("papers/",)}
    assert panel.resume_button.disabled


def test_ingest_error_appears_in_the_panel(rag, tmp_path):
    rag.error = StorageError("the disk is full: free some room")
    panel = widgets.IngestWidget(rag, uploads=tmp_path)
    panel.start_button.click()
    assert "Upload files, or type" in panel.status.value
    panel.path.value = "papers/"
    panel.start_button.click()
    assert panel.wait(10)
    assert "the disk is full" in panel.status.value
    assert panel.bar.bar_style == "danger"
    assert not panel.start_button.disabled


def test_progress_words_say_how_far_how_fast_and_how_long():
    words = ingest_panel.progress_words(ProgressState("docs/a.pdf", 0, 1, 30, 120, 90, 10.0, 30.0, 512.4))
    assert words == "a.pdf · 30 of 120 parts, 90 chunks · 3.0 parts/s · 30.0 s left · 512 MiB of memory"
    assert ingest_panel.progress_words(ProgressState()) == "0 parts, 0 chunks"


# ---- monitor and fallback


def test_monitor_samples_between_start_and_stop(rag):
    panel = widgets.MonitorWidget(rag, interval_s=0.01)
    assert "memory MiB" in panel.view.value
    assert "p50_ms" in panel.view.value
    panel.start_button.click()
    deadline = time.monotonic() + 20
    while len(panel.samples) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    panel.stop_button.click()
    seen = len(panel.samples)
    assert seen >= 4
    assert not panel._thread.is_alive()
    import psutil

    assert 1 < panel.samples[-1]["memory MiB"] < psutil.virtual_memory().total / 2**20
    assert "<script" not in panel.view.value


def test_gpu_sample_reads_what_nvidia_smi_prints(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, 1024, 37'\necho '1, [N/A], 5'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert watch.gpu_sample() == {"gpu 0 MiB": 1024.0, "gpu 0 %": 37.0}
    monkeypatch.setenv("PATH", "")
    assert watch.gpu_sample() == {}


def test_show_without_a_front_end_is_a_dialogue_in_text(rag):
    lines = iter(["where is the lighthouse", "bad", ""])
    said = []

    def read(_):
        line = next(lines)
        rag.error = ConfigError("ask better") if line == "bad" else None
        return line

    assert widgets.show(rag, read=read, write=said.append) is None
    text = "".join(said)
    assert "The lighthouse stands on the cape [1]" in text
    assert "ask better" in text


def test_show_in_a_notebook_is_the_panel(rag, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    assert isinstance(widgets.show(rag), widgets.SearchWidget)


def test_panels_read_well_as_plain_text(rag, tmp_path):
    assert "rag.query" in repr(widgets.SearchWidget(rag))
    assert "rag.ingest" in repr(widgets.IngestWidget(rag, uploads=tmp_path))
