"""Several text models as one: a cosine is the mean of theirs, and everything else goes on as with one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.embedding_server import DIM
from ultrafast_rag.config import Config
from ultrafast_rag.errors import ConfigError, IndexStateError
from ultrafast_rag.rag import UltraFastRAG
from ultrafast_rag.types import TEXT_SPACE

TEXTS = ["The brig Marlin carried salt to Bergen.", "Lighthouses burn rape oil.", "Herring is cured in barrels."]
BOTH = "sentence-transformers/all-MiniLM-L6-v2 + openai:little-embed"


@pytest.fixture
def settings(service):
    return {"text_model": BOTH, "embeddings_base_url": service.url, "cache_embeddings": False} | {
        "image_model": None, "speech_model": None, "reader_model": None, "quiet": True, "query_cache": False
    }  # fmt: skip


def test_an_index_of_two_models_is_searched_by_the_mean_of_their_cosines(service, settings, tmp_path):
    folder = tmp_path / "index"
    with UltraFastRAG(folder, **settings) as rag:
        rag.add_texts(TEXTS)
        encoder, question = rag._models.text(), "oil for a lighthouse"
        assert encoder.dim == 384 + DIM
        each = [rag._models.pool.lease(TEXT_SPACE)]
        with each[0] as joined:
            asked, passages = encoder.encode_queries([question])[0], encoder.encode(TEXTS)
            apart = [passage @ query for passage, query in (
                (member.encode(TEXTS), member.encode_queries([question])[0]) for member in joined.members
            )]  # fmt: skip
        assert np.allclose(passages @ asked, np.mean(apart, axis=0), atol=1e-5)
        assert np.allclose(np.linalg.norm(passages, axis=1), 1, atol=1e-5)
        hit = rag.search(question, k=1, alpha=1.0)[0]
        assert hit.text == TEXTS[1]
        assert hit.dense_score == pytest.approx(np.mean(apart, axis=0)[1], abs=2e-3)
        assert "The brig Marlin carried salt to Bergen." in service.texts()  # as written, not as the first one's tokens
    with UltraFastRAG(folder, **settings) as rag:  # held to both references
        assert rag.search("salt", k=1)[0].text == TEXTS[0]
        service.down = True
        rag._models.text().close()
        hits = rag.search("herring barrels", k=1)
        assert hits[0].text == TEXTS[2]
        assert "found by words alone" in hits.notes[0]
    service.down = False
    turned = " + ".join(reversed(BOTH.split(" + ")))
    with UltraFastRAG(folder, **{**settings, "text_model": BOTH}) as rag:
        assert rag.migrate(text_model="openai:alone", wait=True) == 1.0  # and away from them
        assert rag._store.vectors(TEXT_SPACE).vectors.shape == (3, DIM)
    with pytest.raises(IndexStateError, match="openai:alone"):
        UltraFastRAG(folder, **{**settings, "text_model": turned})


def test_what_two_models_cannot_have_is_refused(settings):
    with pytest.raises(ConfigError, match="leave query_prompt"):
        Config(text_model=BOTH, text_dim=32)
    with pytest.raises(ConfigError, match="encode='first'"):
        Config(text_model="a + b", encode="progressive")
    kept = Config().identity() | {"text_model": "a + \\\\elsewhere\\share"}
    with pytest.raises(IndexStateError, match="neither a hub id nor a folder"):
        Config.for_index(kept, None, {})
