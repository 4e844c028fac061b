"""The reader against brute force, against torch, and on passages whose answer one can see."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ultrafast_rag.config import Config
from ultrafast_rag.errors import WeightsError
from ultrafast_rag.models.device import plan_device
from ultrafast_rag.models.reader.reader import LONGEST_ANSWER, best_span, open_reader

PASSAGES = [
    ("Larkholm lighthouse", "The tower was finished in 1874. Its lamp was electrified in 1931, which cost 4,200 crowns."),
    ("Larkholm harbour", "The quay is 210 metres long. Ferries call twice a day between May and September."),
    ("Accounts", "in millions | 2018 | 2017\nNet sales | 32,765 | 31,657\nInterest expense | 310 | 287"),
]


@pytest.fixture(scope="module")
def reader():
    config = Config(device="cpu", offline=True)
    opened = open_reader(config, plan_device(config))
    yield opened
    opened.close()


def spans(reader, question):
    return [(text[r.start : r.end], r) for (_, text), r in zip(PASSAGES, reader.read(question, PASSAGES))]


@pytest.mark.reference
@pytest.mark.parametrize("seed", range(5))
def test_best_span_is_what_trying_all_finds(seed):
    rng = np.random.default_rng(seed)
    start, end = rng.normal(size=(2, 60)).astype(np.float32)
    start[rng.integers(0, 60, 10)] = -np.inf
    every = [(start[i] + end[j], i, j) for i, j in itertools.product(range(60), repeat=2) if i <= j < i + LONGEST_ANSWER]
    value, first, last = max(every)
    assert best_span(start, end) == (first, last, pytest.approx(value))


@pytest.mark.parametrize(
    ("question", "place", "answer"),
    [
        ("When was the lamp electrified?", 0, "1931"),
        ("How long is the quay?", 1, "210 metres"),
        ("What were net sales in 2018?", 2, "32,765"),
        ("What was interest expense in 2017?", 2, "287"),
    ],
)
def test_the_right_passage_wins_with_the_right_span(reader, question, place, answer):
    found = spans(reader, question)
    assert max(range(3), key=lambda n: found[n][1].answerable) == place
    assert answer in found[place][0]


def test_what_no_passage_says_is_less_answerable_than_what_one_says(reader):
    known, unknown = (
        max(r.answerable for _, r in spans(reader, q)) for q in ("How long is the quay?", "Who painted the chapel?")
    )
    assert known > 0 > unknown


def test_openvino_agrees_with_torch(reader):
    from ultrafast_rag.models.reader.network import open_network
    from ultrafast_rag.models.reader.reader import BASE, WEIGHTS, SpanReader, _in_torch
    from ultrafast_rag.models.weights import resolve

    config = Config(device="cpu", offline=True)
    weights = resolve(BASE, kind="text", offline=True, cache_dir=config.cache_dir)
    network = _in_torch(open_network(weights.path, adapters=WEIGHTS), plan_device(config))
    exact = SpanReader(network, weights.path / "tokenizer.json", fingerprint="torch")
    for question in ("When was the tower finished?", "What were net sales in 2017?"):
        for ours, theirs in zip(reader.read(question, PASSAGES), exact.read(question, PASSAGES)):
            assert ours.answerable == pytest.approx(theirs.answerable, abs=0.2)  # bf16 where the chip has it
            assert ours.margin == pytest.approx(theirs.margin, abs=0.5)


def test_the_order_of_passages_does_not_matter(reader):
    alone = [reader.read("How long is the quay?", [passage])[0] for passage in PASSAGES]
    together = reader.read("How long is the quay?", PASSAGES)
    assert [r[:2] for r in alone] == [r[:2] for r in together]
    assert [r.answerable for r in alone] == pytest.approx([r.answerable for r in together], abs=0.1)


def test_an_answer_is_never_looked_for_in_the_headings(reader):
    found = reader.read("What is the lighthouse called?", [("Larkholm lighthouse", "It burns all night.")])[0]
    assert 0 <= found.start < found.end <= len("It burns all night.")


def test_it_says_which_questions_it_can_read(reader):
    assert reader.reads("What did the committee decide about the northern quay?")
    assert not reader.reads("ताजमहल किसने बनवाया था और कब?")
    assert not reader.reads("北京的人口是多少？")
    assert not reader.reads("ราชินีวิกตอเรียครองราชย์เมื่อปีใด")  # one word, and one unknown piece
    assert not reader.reads("Wie viele Punkte gab die Verteidigung ab?")
    assert not reader.reads("Khi nào công ty được thành lập?")


def test_adapters_of_another_model_are_refused(tmp_path, capfd):
    import torch
    from safetensors.torch import save_file

    from ultrafast_rag.models.reader.network import open_network
    from ultrafast_rag.models.reader.reader import BASE
    from ultrafast_rag.models.weights import resolve

    weights = resolve(BASE, kind="text", offline=True, cache_dir=Config().cache_dir)
    open_network(weights.path)
    assert "LOAD REPORT" not in capfd.readouterr().err  # of a pooler that nobody uses
    save_file({"span.weight": torch.zeros(2, 7)}, str(tmp_path / "wrong.safetensors"))
    with pytest.raises(WeightsError, match=r"do not fit.*span\.weight"):
        open_network(weights.path, adapters=tmp_path / "wrong.safetensors")


def test_the_text_models_folder_serves_where_the_name_leads_nowhere(tmp_path, monkeypatch):
    """On Kaggle without a connection the one copy of MiniLM is an input of the notebook, under a path."""
    from ultrafast_rag.models.reader import reader as module

    weights = module.resolve(module.BASE, kind="text", offline=True, cache_dir=Config().cache_dir)
    elsewhere, other = tmp_path / "input", tmp_path / "other"
    for folder in (elsewhere, other):
        folder.mkdir()
        for file in weights.path.glob("*.json"):
            (folder / file.name).write_bytes(file.read_bytes())
    (elsewhere / "model.safetensors").symlink_to(weights.path / "model.safetensors")
    (other / "model.safetensors").write_bytes((weights.path / "model.safetensors").read_bytes()[:-1] + b"!")

    def unnamed(name, **options):
        if name == module.BASE:
            raise WeightsError(f"no weights for {name!r}")
        return resolve(name, **options)

    resolve = module.resolve
    monkeypatch.setattr(module, "resolve", unnamed)
    assert module._base(Config(text_model=str(elsewhere))).revision == weights.revision == module.BASE_REVISION
    with pytest.raises(WeightsError, match="no weights"):
        module._base(Config(text_model=str(other)))
