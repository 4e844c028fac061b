"""The shipped samples hold what their labels say, and the demo checkpoints do what their cards say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parents[1] / "data"
SAMPLES, MODELS = DATA / "samples", DATA / "models"
sys.path.insert(0, str(DATA))

pymupdf = pytest.importorskip("pymupdf")
import make_samples  # noqa: E402
import speech  # noqa: E402

QUESTIONS = json.loads((DATA / "questions.json").read_text(encoding="utf-8"))
HANDBOOK = SAMPLES / "larkholm_handbook.pdf"


@pytest.fixture(scope="module")
def pages():
    return make_samples.page_texts(HANDBOOK)


def test_handbook_is_what_the_readme_says(pages):
    with pymupdf.open(HANDBOOK) as doc:
        pictures = [len(page.get_images()) for page in doc]
        assert doc.metadata["title"] == "Larkholm Sea Station: the handbook"
        assert len(doc.get_toc()) > 50
    assert len(pages) >= 20
    assert HANDBOOK.stat().st_size < 1_500_000
    assert sum(pictures) == 19  # 17 figures, the cover, the notice
    captions = " ".join(pages[2:-1])
    assert all(f"Figure {n}:" in captions for n in range(1, 18))
    assert all(f"Table {n}:" in captions for n in range(1, 9))


def test_one_page_is_only_a_picture(pages):
    empty = [number for number, text in enumerate(pages, 1) if not text.strip()]
    asked = {row["page"] for row in QUESTIONS if row.get("needs") == "ocr"}
    assert len(empty) == 1
    assert asked == set(empty)
    with pymupdf.open(HANDBOOK) as doc:
        assert len(doc[empty[0] - 1].get_images()) == 1


def test_contents_list_names_the_pages_the_headings_stand_on(pages):
    with pymupdf.open(HANDBOOK) as doc:
        for _, title, page in doc.get_toc():
            assert title.split(" ", 1)[-1] in pages[page - 1]


def test_questions_cover_every_modality_and_some_have_no_answer():
    assert len(QUESTIONS) >= 40
    assert len({row["question"] for row in QUESTIONS}) == len(QUESTIONS)
    assert {row["modality"] for row in QUESTIONS} >= {"text", "image", "audio", "video"}
    assert sum(row["source"] is None for row in QUESTIONS) == 5
    assert sum(bool(row.get("demo")) for row in QUESTIONS) >= 3


ANSWERED = [row for row in QUESTIONS if row["source"] and row["answer"]]


@pytest.mark.parametrize("row", ANSWERED, ids=lambda row: row["question"][:40])
def test_answer_stands_where_the_question_says(row, pages):
    source = SAMPLES / row["source"]
    assert source.exists()
    if row.get("needs") == "ocr":
        assert not pages[row["page"] - 1]
    elif source.suffix == ".pdf":
        assert row["answer"] in pages[row["page"] - 1]
    elif row["modality"] == "audio":
        spoken = json.loads((DATA / "spoken.json").read_text(encoding="utf-8"))[source.name]
        assert any(row["answer"] in said["text"] and said["start_s"] == row["start_s"] for said in spoken)
    else:
        assert row["answer"] in make_samples.squeeze(source.read_text(encoding="utf-8"))


def test_no_answer_to_the_unanswerable(pages):
    everything = " ".join(pages) + " ".join((SAMPLES / name).read_text(encoding="utf-8") for name in make_samples.TEXTS)
    for word in ("submarine", "airline", "electron microscope", "chess"):
        assert word not in everything.lower()


def test_scripts_write_the_same_samples_again(tmp_path):
    make_samples.write_texts(tmp_path)
    for name in make_samples.TEXTS:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes()
    make_samples.write_handbook(tmp_path)
    assert make_samples.page_texts(tmp_path / HANDBOOK.name) == make_samples.page_texts(HANDBOOK)
    first = (tmp_path / HANDBOOK.name).read_bytes()
    make_samples.write_handbook(tmp_path)
    assert (tmp_path / HANDBOOK.name).read_bytes() == first
    for name, spans in make_samples.known_spans().items():
        assert spans, name
    (tmp_path / "s").mkdir()
    make_samples.write_questions(SAMPLES, tmp_path / "s", make_samples.known_spans())
    for name in ("questions.json", "spoken.json"):
        assert (tmp_path / "s" / name).read_text(encoding="utf-8") == (DATA / name).read_text(encoding="utf-8")


def test_recording_and_film_last_as_long_as_their_labels_say():
    av = pytest.importorskip("av")
    spoken = json.loads((DATA / "spoken.json").read_text(encoding="utf-8"))
    for name, kinds in (("station_report.ogg", {"audio"}), ("island_film.mp4", {"audio", "video"})):
        assert (SAMPLES / name).stat().st_size < 1_000_000
        with av.open(str(SAMPLES / name)) as box:
            assert {stream.type for stream in box.streams} == kinds
            assert box.duration / 1e6 >= spoken[name][-1]["end_s"] - 0.5


def test_narration_keeps_to_the_closed_vocabulary():
    known = speech.vocabulary()
    for rows in json.loads((DATA / "spoken.json").read_text(encoding="utf-8")).values():
        for row in rows:
            assert set(row["text"].lower().replace(".", "").replace(",", "").split()) <= known


@pytest.fixture(scope="module")
def clip():
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = MODELS / "demo-clip"
    model = transformers.CLIPModel.from_pretrained(folder, dtype="float32").eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder), transformers.CLIPImageProcessor.from_pretrained(folder)


def _similarity(clip, images, captions):
    import torch

    model, tokenizer, processor = clip
    with torch.inference_mode():
        seen = model.visual_projection(model.vision_model(**processor(images, return_tensors="pt")).pooler_output).numpy()
        tokens = tokenizer(captions, return_tensors="pt", padding=True, truncation=True, max_length=40)
        meant = model.text_projection(model.text_model(**tokens).pooler_output).numpy()
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    return unit(meant) @ unit(seen).T


def test_demo_clip_recalls_pictures_drawn_from_another_seed(clip):
    from train_demo_clip import unseen

    right = []
    for seed in (123_456, 654_321):
        images, captions = unseen(seed, 100)
        assert len(set(captions)) == 100
        right.append((_similarity(clip, images, captions).argmax(1) == np.arange(100)).mean())
    assert np.mean(right) >= 0.8


def test_demo_clip_finds_the_samples_own_pictures(clip):
    from figures import FIGURES
    from PIL import Image

    images = [draw() for draw in FIGURES.values()]
    names = list(FIGURES)
    files = [row["source"] for row in QUESTIONS if row["modality"] == "image" and not row["answer"]]
    names += files
    images += [Image.open(SAMPLES / name).convert("RGB") for name in files]
    wanted = {"bar chart of rainfall by month": "rainfall", "heat map of wind by month": "wind"}
    wanted["pie chart of power by season"] = "power"
    wanted |= {row["question"]: row["source"] for row in QUESTIONS if row["modality"] == "image" and not row["answer"]}
    best = _similarity(clip, images, list(wanted)).argmax(1)
    assert [names[k] for k in best] == list(wanted.values())


def test_recorded_replies_are_marked_as_ours_and_describe_passages_that_are_there():
    recorded = json.loads((DATA / "recorded_replies.json").read_text(encoding="utf-8"))
    assert "no model wrote them" in recorded["made_by"]
    names = ("letters_from_the_crew.md", "garden_calendar.md")
    texts = {name: " ".join((DATA / "samples" / name).read_text(encoding="utf-8").split()) for name in names}
    for reply in recorded["replies"]:
        assert sum(reply["starts"] in text for text in texts.values()) == 1, reply["starts"]
    for row in recorded["questions"]:
        assert row["answer"] in texts[row["source"]], row
