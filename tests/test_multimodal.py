"""The samples, all modalities in one index, with the demo checkpoints loaded by path like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pymupdf
import pytest
from PIL import Image

from ultrafast_rag import UltraFastRAG

DATA = Path(__file__).parent.parent / "data"
QUESTIONS = json.loads((DATA / "questions.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rag(tmp_path_factory):
    models = {"image_model": str(DATA / "models/demo-clip"), "speech_model": str(DATA / "models/demo-whisper")}
    with UltraFastRAG(tmp_path_factory.mktemp("samples") / "index", quiet=True, **models) as rag:
        rag.report = rag.ingest(DATA / "samples")
        yield rag


def asked(modality):
    return [row for row in QUESTIONS if row["modality"] == modality and "needs" not in row]


def test_all_samples_are_read(rag):
    assert rag.report.failed == ()
    assert rag.report.complete
    assert {Path(d.source).name for d in rag.documents()} == {path.name for path in (DATA / "samples").iterdir()}
    assert any("demo-clip is a demonstration model" in note for note in rag.report.notes)


def test_a_chart_is_found_with_its_page(rag):
    hit = rag.search("bar chart of rainfall by month")[0]
    assert (hit.modality, hit.page, Path(hit.source).name) == ("image", 6, "larkholm_handbook.pdf")


def test_questions_about_pictures_find_them(rag):
    found = 0
    for row in asked("image"):
        hits = rag.search(row["question"], k=3, modality="image")
        found += any(Path(hit.source).name == row["source"] and row["page"] in (None, hit.page) for hit in hits)
    assert found >= 0.8 * len(asked("image"))


def test_a_film_is_found_by_its_frame_and_second(rag):
    for row in asked("video"):
        # what is said in the film is found too: the frame is among the first three
        seconds = [hit.start_s for hit in rag.search(row["question"], k=3, modality="video")]
        assert any(row["start_s"] - 0.5 <= second < row["end_s"] for second in seconds), (row["question"], seconds)


def test_a_picture_finds_itself_and_what_is_like_it(rag):
    hits = rag.search((DATA / "samples/two_red_boats_at_sunset.jpg"), k=3)
    assert Path(hits[0].source).name == "two_red_boats_at_sunset.jpg"
    assert hits[0].score > 0.95


def test_evidence_of_each_kind_can_be_seen(rag):
    for question, modality, kind in (
        ("bar chart of rainfall by month", "image", "image/"),
        ("Who founded the station?", "text", "image/"),
        ("three green trees in the snow", "video", ""),
    ):
        hits = rag.search(question, k=1, modality=modality)
        evidence = hits.evidence(hits[0])
        assert evidence is not None, question
        assert evidence.media_type.startswith(kind)


def test_a_bad_picture_is_a_line_in_the_report(rag, tmp_path):
    (tmp_path / "cut.jpg").write_bytes((DATA / "samples/two_red_boats_at_sunset.jpg").read_bytes()[:300])
    Image.new("RGB", (40, 30), "red").save(tmp_path / "fine.png")
    report = rag.ingest(tmp_path)
    assert [Path(source).name for source, _ in report.failed] == ["cut.jpg"]
    assert report.documents == 1
    for path in tmp_path.iterdir():
        rag.delete(path)


def test_a_spoken_sentence_is_found_with_its_second(rag):
    found = 0
    for row in asked("audio"):
        hit = rag.search(row["question"], k=1, modality="audio")[0]
        assert Path(hit.source).name == row["source"]
        found += hit.start_s < row["end_s"] and hit.end_s > row["start_s"]
    assert found >= 4  # of five: the demo model's word error rate is 0.04, and one word can be the one asked for
    assert "green box" in rag.query("Where is the key kept?").text


def test_a_picture_finds_itself_in_a_document_and_the_words_around_it(rag):
    chart = rag.search("bar chart of rainfall by month", k=1)[0]
    with pymupdf.open(DATA / "samples/larkholm_handbook.pdf") as document:
        shot = document[chart.page - 1].get_pixmap(dpi=110, clip=pymupdf.Rect(chart.bbox)).tobytes("png")
    hit = rag.search(shot, k=1, neighbours=True)[0]
    assert (hit.chunk_id, hit.page) == (chart.chunk_id, 6)
    assert "October is the wettest month" in hit.text
    assert all(hit.neighbours)


def test_pages_as_pictures_are_found_by_a_picture_of_them(tmp_path, public_data):
    """A scan, and slides whose page is more than its words."""
    folder = public_data / "pdf_varied/docling"
    scan, slides = folder / "ocr/sources/ocr_test.pdf", folder / "odf/sources/odf_presentation_01.odp.pdf"
    models = {"image_model": str(DATA / "models/demo-clip"), "speech_model": None}
    with UltraFastRAG(tmp_path / "index", index_pages=True, quiet=True, **models) as rag:
        assert rag.ingest(scan, slides).failed == ()
        for path, page in ((scan, 1), (slides, 1), (slides, 2), (slides, 3)):
            with pymupdf.open(path) as document:
                shot = document[page - 1].get_pixmap(dpi=90).tobytes("png")
            hit = rag.search(shot, k=1)[0]
            assert (Path(hit.source).name, hit.page, hit.metadata.get("whole_page")) == (path.name, page, True)
            assert rag.search(shot, k=1).evidence(hit).media_type.startswith("image/")
