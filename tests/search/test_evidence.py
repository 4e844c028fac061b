"""Evidence is what the passage stands on: its page marked, its picture, its clip."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from PIL import Image

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.extract.media.clip import clip_bytes
from ultrafast_rag.extract.media.frames import frame_at
from ultrafast_rag.extract.pdf.crop import crop_page
from ultrafast_rag.notebook.display import Budget
from ultrafast_rag.search.evidence import CLIP_BYTES, EvidenceFinder, shown_type
from ultrafast_rag.types import MOMENTS, Hit, moments_of

SAMPLES = Path(__file__).parent.parent.parent / "data" / "samples"
TEXT_ONLY = {"image_model": None, "speech_model": None, "quiet": True}


@pytest.fixture
def pdf(tmp_path):
    document = pymupdf.open()
    for number in range(3):
        page = document.new_page(width=400, height=600)
        page.insert_text((50, 100), f"Page {number + 1} speaks of ordinary things and the weather.")
    document[1].insert_text((50, 400), "The beacon on Skerry Rock flashes every nine seconds.")
    path = tmp_path / "beacon.pdf"
    document.save(path)
    return path


def marked(data):
    """Bounding box of the yellow mark, as fractions of the picture's height."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    rows = np.flatnonzero(((pixels[..., 0] - pixels[..., 2]) > 30).any(axis=1))
    return pixels.shape, (rows.min() / len(pixels), rows.max() / len(pixels)) if len(rows) else None


def test_a_crop_holds_the_passage_marked_with_page_around_it(pdf):
    shape, (top, bottom) = marked(crop_page(str(pdf), 2, (50, 390, 300, 404), 800))
    assert shape[1] == pytest.approx(2.5 * (250 + 24), abs=3)  # the passage's width and a margin, as large as helps
    assert shape[0] == pytest.approx(2.5 * 140, abs=3)  # not the page's whole height
    assert 0.3 < top < bottom < 0.7


LEFT = (
    "The keeper trims the lamp at dusk.",
    "Every nine seconds the beacon on",
    "Skerry Rock sends a flash of light to",
    "the boats. In winter the oil is thick,",
    "and the clockwork has to be wound",
    "more often than the rules allow.",
)
SENTENCE = "Every nine seconds the beacon on Skerry Rock sends a flash of light to the boats."


@pytest.fixture
def two_columns(tmp_path):
    document = pymupdf.open()
    page = document.new_page(width=595, height=842)
    for column, lines in ((50, LEFT), (310, ("Here stands another column of words.",) * 6)):
        for row in range(8):
            for number, line in enumerate(lines):
                page.insert_text((column, 80 + 90 * row + 14 * number), line if row == 3 else "filling words " * 3)
    document.save(tmp_path / "columns.pdf")
    return str(tmp_path / "columns.pdf"), (50, 339, 265, 425)


def test_a_crop_of_two_columns_shows_the_one_large_enough_to_read(two_columns):
    path, box = two_columns
    shape, _ = marked(crop_page(path, 1, box, 760))
    assert shape[1] / (265 - 50 + 25) > 2  # pixels a point; the whole page's width would have left 1.3


def test_the_quoted_sentence_is_marked_rather_than_the_passage(two_columns):
    path, box = two_columns
    whole = marked(crop_page(path, 1, box, 760))[1]
    shape, mark = marked(crop_page(path, 1, box, 760, SENTENCE))
    height = lambda at, pixels: (at[1] - at[0]) * pixels  # noqa: E731
    assert 2.5 < height(mark, shape[0]) / 2.5 / 14 < 4  # three lines of 14 points
    assert height(whole, shape[0]) > 1.4 * height(mark, shape[0])
    # a hyphen at the line's end and other spacing are no hindrance
    assert marked(crop_page(path, 1, box, 760, SENTENCE.replace("beacon on Skerry", "bea- con  on\nSkerry")))[1] == mark
    assert marked(crop_page(path, 1, box, 760, "Nothing of this stands on that page at all."))[1] == whole


def test_without_a_place_the_whole_page_is_shown_unmarked(pdf):
    shape, mark = marked(crop_page(str(pdf), 1, None, 600))
    assert (shape[0], mark) == (600, None)


def test_a_rotated_page_is_marked_where_it_is_seen(tmp_path):
    document = pymupdf.open()
    page = document.new_page(width=400, height=600)
    page.set_rotation(90)
    document.save(tmp_path / "turned.pdf")
    _, (top, bottom) = marked(crop_page(str(tmp_path / "turned.pdf"), 1, (200, 150, 400, 170), 800))
    assert 0.3 < top < bottom < 0.7


def test_a_hit_shows_its_page_and_says_so_once_the_file_changed_or_went(tmp_path, pdf):
    with UltraFastRAG(tmp_path / "index", **TEXT_ONLY) as rag:
        rag.ingest(pdf)
        hits = rag.search("How often does the beacon on Skerry Rock flash?", k=1)
        assert hits[0].page == 2
        evidence = hits.evidence(hits[0])
        assert evidence.media_type == "image/jpeg"
        assert len(evidence.data) < 60_000
        _, mark = marked(evidence.data)
        assert mark is not None
        assert "data:image" in hits._repr_html_()
        pdf.write_bytes(pdf.read_bytes() + b"\n")
        evidence = hits.evidence(hits[0])
        assert (evidence.data, evidence.media_type) == (b"", "text/plain")
        assert "beacon.pdf has changed since it was read" in evidence.caption
        assert "has changed since it was read" in hits._repr_html_()
        pdf.unlink()
        assert "beacon.pdf is not here any more" in hits.evidence(hits[0]).caption


def test_the_clip_and_the_place_are_of_the_moment_that_was_asked_for(tmp_path):
    """Words over a film: a lighthouse is asked for, whose sentence comes third of four."""
    pytest.importorskip("av")
    film = tmp_path / "island_film.mp4"
    film.write_bytes((SAMPLES / "island_film.mp4").read_bytes())
    lines = ("a red boat on the sea", "a quiet bay", "a white lighthouse at night", "green trees in the snow")
    cues = [f"00:00:{at:02d}.000 --> 00:00:{at + 3:02d}.000\nHere we see {line}." for at, line in zip((0, 3, 6, 9), lines)]
    film.with_suffix(".vtt").write_text("WEBVTT\n\n" + "\n\n".join(cues))
    with UltraFastRAG(**TEXT_ONLY) as rag:
        rag.ingest(film)
        hits = rag.search("a white lighthouse at night", modality="video", k=1)
        hit = hits[0]
        assert "red boat" in hit.text  # one passage holds them all
        assert (hit.start_s, hit.moment_s, hit.where) == (0.0, 6.0, "island_film.mp4, 0:06")
        shown = hits.evidence(hit)
        assert shown.media_type == "video/mp4"
        night, day = (pixels_of(frame_at(film, at, 320)) for at in (6.0, 0.0))
        first = first_frame(shown.data)
        assert np.abs(first - night).mean() < np.abs(first - day).mean() / 3
        first = first_frame(hits.evidence(replace(hit, focus="Here we see a red boat on the sea.")).data)
        assert np.abs(first - day).mean() < np.abs(first - night).mean() / 3
        assert rag.search("something else entirely", modality="video", k=1)[0].where == "island_film.mp4, 0:00"


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((32, 24))).astype(int)


def first_frame(data):
    import av

    with av.open(io.BytesIO(data)) as played:
        return np.asarray(next(played.decode(video=0)).to_image().resize((32, 24))).astype(int)


@pytest.mark.parametrize("name", ["island_film.mp4", "station_report.ogg"])
def test_a_clip_with_no_room_in_a_card_is_made_shorter_or_a_still_never_refused(name):
    pytest.importorskip("av")
    with UltraFastRAG(**TEXT_ONLY) as rag:
        hit = Hit(1, "d", str(SAMPLES / name), "video" if "film" in name else "audio", "words", 1.0, start_s=0.0, end_s=15.0)
        found = EvidenceFinder(rag._store, rag._sandbox.call)._clip(hit, Path(hit.source))
        small = found.smaller(9_000)
        assert 0 < len(small.data) < len(found.data)
        room = Budget(4 * len(found.data) // 5, 1)
        assert room.fit(found) is not None


def test_places_in_a_strangers_metadata_are_not_believed():
    for odd in ("x", [["a", 1]], [[0]], [[0, float("nan")]], [[0, -1.0]], {"0": 1}):
        assert moments_of({MOMENTS: odd}) == []
        hit = Hit(1, "d", "talk.mp3", "audio", "a b", 1.0, start_s=3.0, focus="b", metadata={MOMENTS: odd})
        assert hit.moment_s == 3.0


FILM, SOUND = ("island_film.mp4", "video/mp4", 4.5), ("station_report.ogg", "audio/mpeg", 7.5)


@pytest.mark.parametrize(("name", "kind", "least_s"), [FILM, SOUND])
def test_a_clip_for_a_card_is_small_and_plays_for_its_whole_length(name, kind, least_s):
    av = pytest.importorskip("av")
    path = SAMPLES / name
    data = clip_bytes(path, 0.0, least_s + 0.5, CLIP_BYTES)
    assert (shown_type(data), len(data) <= CLIP_BYTES) == (kind, True)
    with av.open(io.BytesIO(data)) as played:
        stream = played.streams[0]
        seconds = [float(frame.time) for frame in played.decode(stream) if frame.time is not None]
    assert max(seconds) > least_s
