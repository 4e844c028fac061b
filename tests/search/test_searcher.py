"""The searcher over small legs whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError
from ultrafast_rag.extract.detect import media_type
from ultrafast_rag.language.terms import trusted
from ultrafast_rag.search.searcher import Searcher, read_query
from ultrafast_rag.types import DESCRIBES, Chunk, Ranking


def f32(*values):
    return np.array(values, np.float32)


def ranking(*pairs):
    return Ranking(np.array([i for i, _ in pairs], np.int64), f32(*(s for _, s in pairs)))


class Legs:
    """A store, a dense and a lexical index of a few chunks with given scores."""

    def __init__(self, chunks, cosines, bm25):
        self.by_id = {chunk.id: chunk for chunk in chunks}
        self.cosines, self.bm25 = cosines, bm25

    def chunks(self, ids):
        return [self.by_id[i] for i in ids if i in self.by_id]

    def allowed(self, filters):
        mask = np.zeros(max(self.by_id) + 1, bool)
        for chunk in self.by_id.values():
            mask[chunk.id] = chunk.modality in filters.get("modality", [chunk.modality])
        return mask

    def neighbours(self, chunk):
        return ("before", "after")

    def document(self, document_id):
        return None

    def leg(self, scores):
        class Leg:
            def search(_, query, k, *, allowed=None):
                known = sorted(((i, s) for i, s in scores.items() if allowed is None or allowed[i]), key=lambda row: -row[1])
                return ranking(*known[:k])

            def score(_, query, ids):
                return f32(*(scores.get(int(i), np.nan) for i in ids))

        return Leg()


class Encoder:
    dim, max_tokens, fingerprint = 2, 256, "test"

    def encode_queries(self, texts):
        return np.tile(f32(1, 0), (len(texts), 1))

    def known_share(self, text):
        return 1.0


def searcher(chunks, cosines, bm25, **settings):
    legs = Legs(chunks, cosines, bm25)
    words = legs.leg(bm25)
    words.score = lambda query, ids: f32(*(bm25.get(int(i), 0.0) for i in ids))
    return Searcher(legs, words, legs.leg(cosines), Encoder, config=Config(**settings))


def chunk(number, text, **fields):
    return Chunk(text, id=number, source="s.txt", document_id="d", context="Title > Part", **fields)


def test_hits_are_fused_over_both_legs_each_once():
    found = searcher([chunk(1, "one"), chunk(2, "two"), chunk(3, "three")], {1: 0.9, 2: 0.5}, {2: 4.0, 3: 1.0})
    hits = found.search("q", k=5, alpha=0.5)
    expected = {1: 0.5 * 1 + 0, 2: 0.5 * 1.5 / 1.9 + 0.5, 3: 0.5 * 0 + 0.5 * 0.25}
    assert {hit.chunk_id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-5)
    assert [hit.chunk_id for hit in hits] == [2, 1, 3]
    assert (hits[0].title, hits[0].section) == ("Title", "Part")


def test_near_copies_are_shown_once_and_the_next_best_moves_up():
    text = "the red beacon on the northern rock flashes twice every nine seconds at night"
    chunks = [chunk(1, text), chunk(2, text + "."), chunk(3, "something else entirely")]
    cosines = {1: 0.9, 2: 0.89, 3: 0.2}
    assert [hit.chunk_id for hit in searcher(chunks, cosines, {}).search("q", k=2, alpha=1)] == [1, 3]
    kept = searcher(chunks, cosines, {}, collapse_duplicates=False).search("q", k=2, alpha=1)
    assert [hit.chunk_id for hit in kept] == [1, 2]


def test_other_figures_make_another_statement():
    text = "net sales of the northern region rose by a tenth on good weather and new ships in the year {}"
    chunks = [chunk(n, text.format(2017 + n)) for n in range(3)]
    assert len(searcher(chunks, {0: 0.9, 1: 0.8, 2: 0.7}, {}).search("q", k=3, alpha=1)) == 3


def test_meaning_weighs_less_where_the_encoder_does_not_know_the_letters():
    assert trusted(0.65, 1.0) == trusted(0.65, 0.8) == 0.65
    assert trusted(0.6, 0.375) == pytest.approx(0.3)
    assert trusted(0.6, 0.0) == 0.0
    assert trusted(1.0, 0.0) == 1.0  # meaning only was asked for
    found = searcher([chunk(1, "one"), chunk(2, "two")], {1: 0.9, 2: 0.1}, {2: 4.0})
    assert found.search("q", k=1, alpha=0.9)[0].chunk_id == 1
    encoder = Encoder()
    encoder.known_share = lambda text: 0.1
    found._text_encoder = lambda: encoder
    assert found.search("q", k=1, alpha=0.9)[0].chunk_id == 2


def test_a_named_file_is_searched_again_and_raised():
    chunks = [chunk(n, f"text {n}") for n in range(1, 200)]

    class Names:
        def named(self, query):
            named = np.zeros(200, np.float32)
            named[150] = 1.0
            return named if "150" in query else None

    bm25 = {n: 200.0 - n for n in range(1, 200)}
    found = searcher(chunks, {}, bm25)
    found._names = Names()
    assert found.search("q", k=1, alpha=0)[0].chunk_id == 1
    assert [hit.chunk_id for hit in found.search("the 150th", k=2, alpha=0)] == [1, 2]  # its words fit far too little
    bm25[150] = 190.0
    # the 101 that fit better would have filled the candidates
    bm25.update({n: 199.0 for n in range(1, 102)})
    assert found.search("the 150th", k=2, alpha=0)[0].chunk_id == 150
    assert found.search("the 150th", k=200, alpha=0, modality="table") == []


def test_a_description_is_shown_as_what_it_describes():
    described = chunk(1, "", modality="image")
    note = chunk(2, "a kite over the harbour", metadata={DESCRIBES: 1})
    lost = chunk(3, "of something deleted", metadata={DESCRIBES: 99})
    hits = searcher([described, note, lost], {2: 0.9, 3: 0.8}, {}).search("q", k=5, alpha=1)
    assert [(hit.chunk_id, hit.modality) for hit in hits] == [(1, "image")]


def test_filters_narrow_before_ranking():
    chunks = [chunk(1, "one"), chunk(2, "two", modality="table")]
    hits = searcher(chunks, {1: 0.9, 2: 0.1}, {1: 3.0}).search("q", k=1, alpha=0.5, modality="table")
    assert [hit.chunk_id for hit in hits] == [2]


def test_words_only_asks_no_encoder():
    found = searcher([chunk(1, "one")], {}, {1: 1.0})
    found._text_encoder = None
    assert found.search("q", k=1, alpha=0)[0].chunk_id == 1


def test_a_pictures_path_is_read_also_when_given_as_text(tmp_path, monkeypatch):
    picture, notes = tmp_path / "photo of a cat.png", tmp_path / "notes.txt"
    Image.new("RGB", (4, 4)).save(picture)
    notes.write_text("words")
    data = picture.read_bytes()
    assert read_query(picture, media_type=media_type) == read_query(str(picture), media_type=media_type) == data
    monkeypatch.chdir(tmp_path)
    assert read_query("photo of a cat.png", media_type=media_type) == data
    for words in ("a cat.png", str(notes), "notes.txt", "a cat", "What is in photo of a cat.png?", "a\0.png"):
        assert read_query(words, media_type=media_type) == words
    with pytest.raises(ConfigError, match="cannot be read"):
        read_query(tmp_path / "gone.png", media_type=media_type)


def test_lines_of_accounts_are_looked_up_by_the_words_of_statements_too():
    asked = []
    found = searcher([chunk(1, "Purchases of property, plant and equipment | 5")], {}, {1: 1.0})
    leg = found._lexical.search
    found._lexical.search = lambda query, k, allowed=None: asked.append(query) or leg(query, k, allowed=allowed)
    found.search("What was Acme's capex?", k=1, alpha=0.0)
    found.search("How high is the lamp?", k=1, alpha=0.0)
    assert "purchases of property plant and equipment" in asked[0]
    assert asked[1] == "How high is the lamp?"
