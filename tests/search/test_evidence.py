"""Evidence is what the passage stands on: its page marked, its picture, its clip."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from PIL import Image

from ultrafast_rag import UltraFastRAG
from ultrafast_rag.extract.media.clip import clip_bytes
from ultrafast_rag.extract.pdf.crop import crop_page
from ultrafast_rag.search.evidence import CLIP_BYTES, shown_type

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
    assert shape[1] == 800  # the page's full width
    assert shape[0] < 400  # not its whole height
    assert 0.3 < top < bottom < 0.7


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


FILM, SOUND = ("island_film.mp4", "video/mp4", 4.5), ("station_report.ogg", "audio/mpeg", 7.5)


@pytest.mark.parametrize(("name", "kind", "least_s"), [FILM, SOUND])
def test_a_clip_for_a_card_is_small_and_plays_for_its_whole_length(name, kind, least_s):
    av = pytest.importorskip("av")
    path = Path(__file__).parent.parent.parent / "data" / "samples" / name
    data = clip_bytes(path, 0.0, least_s + 0.5, CLIP_BYTES)
    assert (shown_type(data), len(data) <= CLIP_BYTES) == (kind, True)
    with av.open(io.BytesIO(data)) as played:
        stream = played.streams[0]
        seconds = [float(frame.time) for frame in played.decode(stream) if frame.time is not None]
    assert max(seconds) > least_s
